// The charts beside the surface: the losses of the runs, and the data with what each run says of them.

function drawLosses() {
  const { context, width, height } = fitted(byId("losses"));
  context.clearRect(0, 0, width, height);
  const box = { left: 62, right: width - 10, top: 8, bottom: height - 34 };
  const longest = Math.max(10, ...page.runs.map((run) => run.descent.losses.length - 1));
  let [low, high] = [Infinity, -Infinity];
  for (const { descent } of page.runs) {
    const limit = descent.losses[0] + 1e6 * Math.max(1, Math.abs(descent.losses[0]));
    for (const value of descent.losses) {
      if (!(value <= limit)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (!(low <= high)) [low, high] = [0, 1];
  const isLog = low > 0 && high > 30 * low;
  const scale = isLog ? Math.log10 : (v) => v;
  let [bottom, top] = [scale(low), scale(high)];
  if (!(top > bottom)) [bottom, top] = [bottom - 1, top + 1];
  const pad = 0.06 * (top - bottom);
  [bottom, top] = [bottom - pad, top + pad];
  const at = (t, v) => [
    box.left + (t / longest) * (box.right - box.left),
    box.bottom - ((scale(v) - bottom) / (top - bottom)) * (box.bottom - box.top),
  ];
  Object.assign(context, { font: TICK_FONT, fillStyle: colour("faint"), lineWidth: 1 });
  context.strokeStyle = colour("line");
  context.textAlign = "right";
  context.textBaseline = "middle";
  let ticks = ticksBetween(bottom, top, 4);
  if (isLog) ticks = [...new Set(ticks.map(Math.round))].filter((t) => t >= bottom && t <= top);
  for (const tick of ticks) {
    const [, y] = at(0, isLog ? 10 ** tick : tick);
    context.beginPath();
    context.moveTo(box.left, y);
    context.lineTo(box.right, y);
    context.stroke();
    context.fillText(told(isLog ? 10 ** tick : tick), box.left - 6, y);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const t of ticksBetween(0, longest, 5)) {
    if (Number.isInteger(t)) context.fillText(t.toLocaleString(), at(t, 1)[0], box.bottom + 5);
  }
  context.fillText(words("steps"), (box.left + box.right) / 2, box.bottom + 19);
  context.save();
  context.beginPath();
  context.rect(box.left, box.top - 2, box.right - box.left + 6, box.bottom - box.top + 4);
  context.clip();
  for (const run of page.runs) {
    const { losses } = run.descent, stride = Math.max(1, Math.floor(losses.length / 600));
    context.beginPath();
    let isDown = false;
    const put = (t) => {
      const [x, y] = at(t, losses[t]);
      const isShown = Number.isFinite(y) || y == -Infinity;
      if (isShown) context[isDown ? "lineTo" : "moveTo"](x, Math.max(-1e4, y));
      isDown = isShown;
    };
    for (let t = 0; t < losses.length - 1; t += stride) put(t);
    put(losses.length - 1);
    context.strokeStyle = run.colour;
    context.lineWidth = run == page.picked ? 3 : 1.8;
    context.stroke();
    const last = at(losses.length - 1, losses.at(-1));
    context.beginPath();
    context.arc(...last.map((v) => (Number.isFinite(v) ? v : -99)), 3.5, 0, 7);
    context.fillStyle = run.colour;
    context.fill();
  }
  context.restore();
}

/** The data, and what the function of each run says of them. */
function drawData() {
  const { context, width, height } = fitted(byId("data"));
  context.clearRect(0, 0, width, height);
  const box = { left: 46, right: width - 10, top: 8, bottom: height - 36 };
  const ends = [0, 1].map((k) => {
    const values = page.rows.map((row) => row[k]), [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (k ? 0.25 : 0.08) * (high - low) || 1;
    return [low - pad, high + pad];
  });
  const at = (x, y) => [
    box.left + ((x - ends[0][0]) / (ends[0][1] - ends[0][0])) * (box.right - box.left),
    box.bottom - ((y - ends[1][0]) / (ends[1][1] - ends[1][0])) * (box.bottom - box.top),
  ];
  Object.assign(context, { font: TICK_FONT, fillStyle: colour("faint"), lineWidth: 1 });
  context.strokeStyle = colour("line");
  context.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  Object.assign(context, { textAlign: "center", textBaseline: "top" });
  for (const x of ticksBetween(...ends[0], 6)) context.fillText(told(x, 3), at(x, 0)[0], box.bottom + 5);
  context.fillText(words("data_in"), (box.left + box.right) / 2, box.bottom + 20);
  Object.assign(context, { textAlign: "right", textBaseline: "middle" });
  for (const y of ticksBetween(...ends[1], 6)) context.fillText(told(y, 3), box.left - 6, at(0, y)[1]);
  context.textAlign = "left";
  context.fillText(words("data_out"), 2, (box.top + box.bottom) / 2);
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
  context.clip();
  for (const run of page.runs) {
    const says = (x) => PROGRAMS.predict(...run.descent.params, x)[0], isPicked = run == page.picked;
    const inside = (y) => Math.max(-1e5, Math.min(1e5, y));
    if (isPicked) {
      context.beginPath();
      for (const [x, y] of page.rows) {
        context.moveTo(...at(x, y));
        context.lineTo(...at(x, says(x)).map(inside));
      }
      Object.assign(context, { strokeStyle: colour("faint"), lineWidth: 1 });
      context.setLineDash([2, 3]);
      context.stroke();
      context.setLineDash([]);
    }
    context.beginPath();
    for (let k = 0; k <= 160; k++) {
      const x = ends[0][0] + (k / 160) * (ends[0][1] - ends[0][0]);
      context[k ? "lineTo" : "moveTo"](...at(x, says(x)).map(inside));
    }
    Object.assign(context, { strokeStyle: run.colour, lineWidth: isPicked ? 3 : 1.8 });
    context.stroke();
  }
  context.fillStyle = colour("ink");
  for (const [x, y] of page.rows) {
    context.beginPath();
    context.arc(...at(x, y), 3.5, 0, 7);
    context.fill();
  }
  context.restore();
}
