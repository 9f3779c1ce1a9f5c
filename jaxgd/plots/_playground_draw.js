// What is drawn anew as runs move: trails, heads, the numbers of the step, the list.

const MANY = 240;  // points of a trail, beyond which they are not marked one by one
let trailsVersion = -1;

/** Draws everything that has changed since the last frame. */
function draw() {
  const isFull = page.isStale || trailsVersion != view.version;
  const signature = page.runs.map(({ descent }) => `${descent.path.length} ${descent.status}`).join();
  if (!isFull && signature == draw.signature) return;
  drawTrails(isFull);
  drawHeads();
  drawLosses();
  if (MODEL.data) drawData();
  showNow();
  showRuns();
  showBound();
  draw.signature = signature;
  page.isStale = false;
}

function clipped(context) {
  const f = frame();
  context.save();
  context.beginPath();
  context.rect(f.left, f.top, f.width, f.height);
  context.clip();
}

function drawTrails(isFull) {
  const layers = ["casings", "trails"].map((id) => fitted(byId(id)));
  for (const { context, width, height } of layers) {
    if (isFull) context.clearRect(0, 0, width, height);
    clipped(context);
    context.lineJoin = context.lineCap = "round";
  }
  trailsVersion = view.version;
  for (const run of page.runs) {
    const { path, losses } = run.descent;
    const from = isFull || !run.drawn ? 0 : run.drawn - 1;
    run.drawn = path.length;
    if (from >= path.length - 1) continue;
    const points = [];
    for (let t = from; t < path.length; t++) {
      const place = placeOf(path[t], losses[t]);
      if (place.every(Number.isFinite)) points.push(place.map((v) => Math.max(-1e5, Math.min(1e5, v))));
    }
    trail(layers[0].context, points, colour("casing"), 4.5, 4, path.length <= MANY);
    trail(layers[1].context, points, run.colour, 2.2, 2.8, path.length <= MANY);
  }
  for (const { context } of layers) context.restore();
}

function trail(context, points, style, line, dot, isMarked) {
  context.beginPath();
  points.forEach((p, k) => context[k ? "lineTo" : "moveTo"](...p));
  context.strokeStyle = context.fillStyle = style;
  context.lineWidth = line;
  if (IS_CURVE) context.setLineDash([2, 5]);
  context.stroke();
  context.setLineDash([]);
  if (!isMarked) return;
  context.beginPath();
  for (const [x, y] of points) {
    context.moveTo(x + dot, y);
    context.arc(x, y, dot, 0, 7);
  }
  context.fill();
}

function arrow(context, from, to, style) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  if (!(length > 3) || length > 1e5) return;
  const [ux, uy] = [(to[0] - from[0]) / length, (to[1] - from[1]) / length], head = Math.min(9, length / 2);
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  for (const side of [-1, 1]) {
    context.moveTo(...to);
    context.lineTo(to[0] - head * (ux + side * 0.5 * uy), to[1] - head * (uy - side * 0.5 * ux));
  }
  for (const [colour_, width] of [[colour("casing"), 5], [style, 2]]) {
    Object.assign(context, { strokeStyle: colour_, lineWidth: width });
    context.stroke();
  }
}

/** Where the next step of a run would lead; nothing is changed. */
function nextOf({ rule, rate, momentum, params, grads, state }) {
  return PROGRAMS.rules[rule].step(rate, momentum, ...params, ...grads, ...state).slice(0, NUM_PARAMS);
}

function drawHeads() {
  const { context, width, height } = fitted(byId("heads"));
  context.clearRect(0, 0, width, height);
  clipped(context);
  if (IS_CURVE && page.picked) drawTangents(context, page.picked);
  for (const run of page.runs) {
    const { path, losses, params, loss: value } = run.descent, isPicked = run == page.picked;
    const head = placeOf(params, value), start = placeOf(run.start, losses[0]);
    if (!head.every(Number.isFinite)) continue;
    if (isPicked && !isOver(run)) {
      const next = nextOf(run.descent);
      arrow(context, head, IS_CURVE ? [toPixel(next[0], 0)[0], head[1]] : toPixel(...next), run.colour);
    }
    context.lineWidth = 2.5;
    if (path.length > 1) {
      context.beginPath();
      context.arc(...start, 6, 0, 7);
      context.fillStyle = colour("casing");
      context.fill();
      context.strokeStyle = run.colour;
      context.stroke();
    }
    context.beginPath();
    context.arc(...head, isPicked ? 8 : 6, 0, 7);
    context.fillStyle = run.colour;
    context.fill();
    context.strokeStyle = isPicked ? colour("ink") : colour("casing");
    context.stroke();
  }
  context.restore();
  if (page.cursor) {
    const [x, y] = page.cursor;
    for (const [style, line] of [[colour("casing"), 5], [colour("ink"), 1.5]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: line });
      context.beginPath();
      for (const [dx, dy] of [[12, 0], [0, 12]]) {
        context.moveTo(x - dx, y - dy);
        context.lineTo(x + dx, y + dy);
      }
      context.stroke();
    }
  }
}

/** Of one variable: the tangent, and the parabola whose lowest point is Newton's step. */
function drawTangents(context, run) {
  const { params: [x], loss: value, grads: [slope] } = run.descent, f = frame();
  if (![x, value, slope].every(Number.isFinite)) return;
  const lines = (heights, style, dash) => {
    context.beginPath();
    for (let px = f.left; px <= f.left + f.width; px += 3) {
      const [at] = fromPixel(px, 0), y = toPixel(0, heights(at - x))[1];
      context[px > f.left ? "lineTo" : "moveTo"](px, Math.max(-1e5, Math.min(1e5, y)));
    }
    Object.assign(context, { strokeStyle: style, lineWidth: 1.8 });
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  };
  if (byId("tangent").checked) lines((d) => value + slope * d, run.colour, []);
  const [[bend]] = hessian([x]);
  if (!byId("newton").checked) return;
  lines((d) => value + slope * d + (bend * d * d) / 2, colour("accent"), [7, 5]);
  if (bend > 0) {
    const [px, py] = toPixel(x - slope / bend, value - (slope * slope) / (2 * bend));
    context.beginPath();
    context.moveTo(px, py - 8);
    context.lineTo(px + 7, py);
    context.lineTo(px, py + 8);
    context.lineTo(px - 7, py);
    context.closePath();
    context.fillStyle = colour("accent");
    context.fill();
  }
}

const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** The last step as the rule says it, with its numbers. */
function showNow() {
  const run = page.picked;
  if (!run) {
    byId("now-title").textContent = words("this_step");
    byId("now").textContent = words("nothing");
    byId("status").textContent = "";
    return;
  }
  const { descent } = run, { path, rates } = descent, taken = path.length - 1;
  byId("now-title").textContent = words(taken ? "at_step" : "first_step", { step: taken.toLocaleString() });
  const before = Math.max(0, taken - 1), from = path[before], to = taken ? path[taken] : nextOf(descent);
  const rate = taken ? rates[before] : descent.rate;
  const lines = from.map((x, k) => {
    const u = (x - to[k]) / rate, name = `<em>${escaped(MODEL.axisNames[k])}</em>`;
    const shown = u < 0 ? `(${told(u)})` : told(u);
    const g = `<span class="g">`, r = `<span class="r">`;
    return `<p class="formula">${name} ← ${name} − ${r}η</span> ${g}u</span> = ${told(x)} − ` +
      `${r}${told(rate)}</span> × ${g}${shown}</span> = <b>${told(to[k])}</b></p>`;
  });
  const notes = [words(`u_${descent.rule}`), words("loss_is", { loss: told(descent.loss, 6) })];
  if (IS_CURVE && byId("newton").checked) {
    const [[bend]] = hessian(descent.params);
    if (bend > 0) notes.push(words("newton_to", { x: told(descent.params[0] - descent.grads[0] / bend, 6) }));
  }
  byId("now").innerHTML = `${lines.join("")}<p class="formula"><small>${notes.map(escaped).join("<br>")}</small></p>`;
  const [name, text] = statusOf(run);
  const status = byId("status");
  status.className = name;
  if (name != "MOVING" && status.textContent != text) status.textContent = text;
  if (name == "MOVING" && taken > 0) status.textContent = "";
}

function showRuns() {
  const list = byId("runs");
  while (list.children.length > page.runs.length) list.lastChild.remove();
  page.runs.forEach((run, k) => {
    let item = list.children[k];
    if (!item) {
      item = document.createElement("li");
      item.innerHTML = '<button type="button" class="pick"><i></i><span></span></button><button type="button" class="remove">✕</button>';
      const own = () => page.runs[[...list.children].indexOf(item)];
      item.querySelector(".pick").addEventListener("click", () => { pick(own()); refresh(); });
      item.querySelector(".remove").addEventListener("click", () => remove(own()));
      list.append(item);
    }
    const { rule, rate } = run.descent, [name, text] = statusOf(run);
    const title = words("run", { rule: nameOf(rule), rate: told(rate) });
    const html = `${escaped(title)}<small class="${name}">${escaped(text)}</small>`;
    const span = item.querySelector("span");
    if (span.dataset.html != html) span.innerHTML = span.dataset.html = html;
    item.querySelector("i").style.background = run.colour;
    item.querySelector(".pick").setAttribute("aria-pressed", run == page.picked);
    item.querySelector(".remove").setAttribute("aria-label", words("remove"));
  });
}

function showBound() {
  const mark = byId("bound-mark"), note = byId("bound"), run = page.picked;
  mark.hidden = true;
  note.textContent = "";
  if (!run) return;
  const { bound, formula, sharpness } = boundAt(run.descent.params, page.rule, page.momentum);
  if (!formula) note.textContent = words("bound_adaptive");
  else if (!(bound > 0)) note.textContent = Number.isFinite(sharpness) ? words("bound_none") : "";
  else {
    note.textContent = words("bound", { bound: told(bound), formula });
    const place = onScale(bound, RATES) / 1000;
    mark.hidden = place < 0 || place > 1;
    mark.style.left = `calc(${place} * (100% - 1rem) + .5rem)`;  // a slider's thumb is 1rem wide
  }
}

/** One frame: steps that are due, the surface's next lines, what has changed. */
function tick(now) {
  const began = performance.now();
  if (page.isPlaying && page.last) {
    const elapsed = Math.min(100, now - page.last);
    page.owed += (elapsed / 1000) * page.speed;
    while (page.owed >= 1 && performance.now() - began < 8) {
      page.owed--;
      stepAll();
    }
    if (page.runs.every(isOver)) play(false);
  }
  if (page.last) page.timings.intervals.push(now - page.last);
  page.last = now;
  workOnSurface();
  draw();
  const { frames, intervals } = page.timings;
  frames.push(performance.now() - began);
  if (frames.length > 600) [frames, intervals].forEach((list) => list.splice(0, list.length - 300));
  requestAnimationFrame(tick);
}

// What tests and pages around this one read.
jaxgd.page = {
  runs: () => page.runs.map((run) => ({
    start: run.start, rule: run.descent.rule, rate: run.descent.rate, momentum: run.descent.momentum,
    path: run.descent.path, losses: run.descent.losses, status: STATUSES[isOver(run) ? statusAtLast(run.descent, run.descent.path.length - 1) : MAX_STEPS],
    isPicked: run == page.picked,
  })),
  run: (count) => { for (let k = 0; k < count; k++) stepAll(); refresh(); },
  isPlaying: () => page.isPlaying,
  timings: () => page.timings,
  view: () => ({ x: view.x, y: view.y }),
  toClient: (...point) => {
    const box = byId("stage").getBoundingClientRect(), [x, y] = toPixel(...point);
    return [box.left + x, box.top + y];
  },
};

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
document.body.dataset.theme = prefersDark.matches ? "dark" : "light";
connectControls();
connectHands();
fit();
add(MODEL.start);
speak();
// A page around this one may choose the language and the theme, and is told the height.
window.addEventListener("message", ({ data }) => {
  const wish = data && data.jaxgd;
  if (!wish) return;
  if (MODEL.texts[wish.language]) page.language = wish.language;
  if (wish.theme) setTheme(wish.theme == "dark");
  speak();
});
if (window.parent != window) {
  byId("language").hidden = byId("theme").hidden = true;
  new ResizeObserver(() => {  // a document is never lower than its frame, its body is
    const height = Math.ceil(document.body.getBoundingClientRect().height);
    window.parent.postMessage({ jaxgd: { height } }, "*");
  }).observe(document.body);
}
prefersDark.addEventListener("change", (event) => setTheme(event.matches));
new ResizeObserver(() => { redrawSurface(); page.isStale = true; }).observe(byId("stage"));
requestAnimationFrame(tick);
document.body.dataset.ready = true;
