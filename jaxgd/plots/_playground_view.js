// What is seen of the function: the window, its axes, the surface with its contours or the curve.

const { MODEL, PROGRAMS, STATUSES, MAX_STEPS, NUM_PARAMS, begin, advance, statusAtLast, hessian, runDescent, lossAt,
  useRows } = jaxgd.engine;
const IS_CURVE = MODEL.start.length == 1;
const MARGIN = { left: 54, right: 12, top: 12, bottom: 38 };
const TICK_FONT = "12px system-ui, sans-serif";
const PASSES = IS_CURVE ? [1] : [16, 8, 4];  // pixels from one value to the next
const NUM_LEVELS = 14;
const MILLISECONDS = 9;  // of a frame, for the surface
const loss = (...params) => lossAt(params);
const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();

/** A number for people: few digits, powers of ten as 10⁻⁴. */
function told(x, digits = 4) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
  if (x == 0) return "0";
  const size = Math.abs(x);
  const [mantissa, exponent] = x.toExponential(digits - 1).split("e");
  const plain = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text).replace("-", "−");
  if (size >= 1e-3 && size < 1e5) return plain(Number(x.toPrecision(digits)).toString());
  const power = String(Number(exponent)).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  return plain(mantissa) == "1" ? `10${power}` : `${plain(mantissa)}×10${power}`;
}

/** Round numbers between two others, about so many. */
function ticksBetween(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
  return ticks;
}

/** A canvas as large as its element, sharp on fine screens; its context in CSS pixels. */
function fitted(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  if (canvas.width != Math.round(width * ratio) || canvas.height != Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
}

const view = { x: [0, 1], y: [0, 1], job: null, version: 0, low: 0, high: 1 };

/** The frame of the picture, in pixels. */
function frame() {
  const { clientWidth, clientHeight } = byId("stage");
  return {
    left: MARGIN.left, top: MARGIN.top,
    width: clientWidth - MARGIN.left - MARGIN.right, height: clientHeight - MARGIN.top - MARGIN.bottom,
  };
}

function toPixel(x, y) {
  const f = frame();
  return [
    f.left + ((x - view.x[0]) / (view.x[1] - view.x[0])) * f.width,
    f.top + (1 - (y - view.y[0]) / (view.y[1] - view.y[0])) * f.height,
  ];
}

function fromPixel(px, py) {
  const f = frame();
  return [
    view.x[0] + ((px - f.left) / f.width) * (view.x[1] - view.x[0]),
    view.y[0] + (1 - (py - f.top) / f.height) * (view.y[1] - view.y[0]),
  ];
}

/** Where the params of a run are drawn: themselves, or a point of the curve. */
const placeOf = (params, value) => (IS_CURVE ? toPixel(params[0], value) : toPixel(...params));

/** The window that shows a descent from the first start, unless the page was given one. */
function fit() {
  let path = [MODEL.start], losses = [loss(...MODEL.start)];
  for (let rate = MODEL.rate; rate > MODEL.rate * 1e-7; rate /= 4) {
    const run = runDescent({ rate, start: MODEL.start, steps: 300 });
    const count = run.losses.findIndex((value) => !Number.isFinite(value));
    [path, losses] = [run.path, run.losses].map((rows) => (count > 0 ? rows.slice(0, count) : rows));
    const hasRisen = losses.some((value) => value > losses[0]);
    if (run.status != "DIVERGED" && !(run.status == "NON_FINITE" && hasRisen)) break;
  }
  const boxes = MODEL.start.map((_, k) => {
    const along = path.map((p) => p[k]).filter(Number.isFinite);
    return [Math.min(...along), Math.max(...along)];
  });
  const largest = Math.max(...boxes.map(([low, high]) => high - low));
  const room = boxes.map(([low, high]) => {
    const half = Math.max((IS_CURVE ? 1.7 : 0.85) * (high - low), 0.4 * largest, 0.25 * Math.max(Math.abs(low), Math.abs(high)), 1e-6);
    return [(low + high) / 2 - half, (low + high) / 2 + half];
  });
  const [x, y] = MODEL.domains || room;
  view.x = [...x];
  if (IS_CURVE) fitHeights();
  else view.y = [...y];
  redrawSurface();
}

/** The heights of the curve over its window; a steep rise at an end does not flatten the rest. */
function fitHeights() {
  const values = [];
  for (let k = 0; k <= 200; k++) values.push(loss(view.x[0] + (k / 200) * (view.x[1] - view.x[0])));
  const finite = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!finite.length) return;
  const at = (share) => finite[Math.round(share * (finite.length - 1))];
  const low = lowestShown(at, 0.02, 0.75);
  const high = Math.min(at(1), low + 4 * (at(0.75) - low) || at(1));
  const pad = 0.08 * (high - low) || 1;
  view.y = [low - pad, high + pad];
}

/** The lowest value; where a few values lie far below all others, as beside a pole, the next above them. */
function lowestShown(at, few, most) {
  return at(few) - at(0) > 10 * (at(most) - at(few)) && at(most) > at(few) ? at(few) : at(0);
}

/** Zooms around a place in pixels. */
function zoom(factor, px, py) {
  const [cx, cy] = fromPixel(px, py);
  view.x = view.x.map((x) => cx + (x - cx) * factor);
  if (IS_CURVE) fitHeights();
  else view.y = view.y.map((y) => cy + (y - cy) * factor);
  redrawSurface();
}

function pan(dx, dy) {
  const f = frame();
  const [mx, my] = [(dx / f.width) * (view.x[1] - view.x[0]), (dy / f.height) * (view.y[1] - view.y[0])];
  view.x = view.x.map((x) => x - mx);
  view.y = view.y.map((y) => y + my);
  redrawSurface();
}

/** Starts the surface anew; it is drawn coarse at once, and then finer, frame by frame. */
function redrawSurface() {
  view.version++;
  fitMargin();
  view.job = IS_CURVE ? null : surfaceJob();
  if (IS_CURVE) drawCurve();
  else if (!view.job.next().done) workOnSurface(4 * MILLISECONDS);
}

/** Leaves room for the widest number of the axis beside its name. */
function fitMargin() {
  const { context } = fitted(byId("base"));
  context.font = TICK_FONT;
  const ticks = ticksBetween(...view.y, Math.max(2, frame().height / 60));
  MARGIN.left = Math.max(54, 32 + Math.max(0, ...ticks.map((y) => context.measureText(told(y)).width)));
}

function workOnSurface(milliseconds = MILLISECONDS) {
  const end = performance.now() + milliseconds;
  while (view.job && performance.now() < end) if (view.job.next().done) view.job = null;
}

function* surfaceJob() {
  const f = frame();
  if (f.width <= 0 || f.height <= 0) return; // out of sight: drawn once it has room
  for (const pixels of PASSES) {
    const [nx, ny] = [Math.ceil(f.width / pixels) + 1, Math.ceil(f.height / pixels) + 1];
    const values = new Float64Array(nx * ny);
    for (let j = 0; j < ny; j++) {
      for (let i = 0; i < nx; i++) values[j * nx + i] = loss(...fromPixel(f.left + i * pixels, f.top + j * pixels));
      yield;
    }
    drawSurface(values, nx, ny, pixels, pixels == PASSES.at(-1));
    yield;
  }
}

/** Shades of a value: 0 for the lowest, 1 for the highest; equal ratios above the lowest. */
function shadesOf(values) {
  const finite = Float64Array.from(values.filter(Number.isFinite)).sort();
  if (!finite.length) return null;
  const at = (share) => finite[Math.round(share * (finite.length - 1))];
  const low = lowestShown(at, 0.01, 0.99), knee = at(0.2) - low || at(1) - low || 1;
  const full = Math.log1p((at(0.99) - low) / knee) || 1;
  return {
    low, high: at(0.99),
    of: (v) => Math.log1p((v - low) / knee) / full,
    back: (t) => low + knee * Math.expm1(t * full),
  };
}

const parsed = (text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));

function drawSurface(values, nx, ny, pixels, isLast) {
  const shades = shadesOf(values), f = frame();
  const { context, width, height } = fitted(byId("base"));
  context.clearRect(0, 0, width, height);
  if (shades) {
    const stops = ["low", "middle", "high"].map((name) => parsed(colour(name)));
    const image = new ImageData(nx, ny);
    for (let k = 0; k < nx * ny; k++) {
      if (!Number.isFinite(values[k])) continue;
      const t = 2 * Math.min(1, Math.max(0, shades.of(values[k])));
      const [a, b] = t < 1 ? [stops[0], stops[1]] : [stops[1], stops[2]], s = t < 1 ? t : t - 1;
      for (let c = 0; c < 3; c++) image.data[4 * k + c] = a[c] + (b[c] - a[c]) * s;
      image.data[4 * k + 3] = 255;
    }
    const small = document.createElement("canvas");
    [small.width, small.height] = [nx, ny];
    small.getContext("2d").putImageData(image, 0, 0);
    context.save();
    context.beginPath();
    context.rect(f.left, f.top, f.width, f.height);
    context.clip();
    context.imageSmoothingQuality = "high";
    context.drawImage(small, f.left - pixels / 2, f.top - pixels / 2, nx * pixels, ny * pixels);
    if (pixels < PASSES[0]) drawContours(context, values, nx, ny, pixels, shades, f);
    context.restore();
    byId("scale-low").textContent = told(shades.low, 2);
    byId("scale-high").textContent = `${told(shades.high, 2)}`;
  }
  drawAxes(context, f, MODEL.axisNames[0], MODEL.axisNames[1]);
  byId("stage").dataset.drawn = isLast ? view.version : "";
}

/** Contours by marching squares: in each cell, where the level crosses its edges; none along a jump. */
function drawContours(context, values, nx, ny, pixels, shades, f) {
  const tones = values.map((v) => Math.min(1, Math.max(0, shades.of(v))));
  context.beginPath();
  for (let level = 1; level <= NUM_LEVELS; level++) {
    const value = shades.back(level / NUM_LEVELS);
    for (let j = 0; j + 1 < ny; j++) {
      for (let i = 0; i + 1 < nx; i++) {
        const k = j * nx + i, corners = [values[k], values[k + 1], values[k + nx + 1], values[k + nx]];
        const above = corners.map((v) => v > value);
        if (above[0] == above[1] && above[1] == above[2] && above[2] == above[3]) continue;
        const around = [tones[k], tones[k + 1], tones[k + nx + 1], tones[k + nx]];
        if (Math.max(...around) - Math.min(...around) > 0.5) continue;
        const crossings = [];
        for (let edge = 0; edge < 4; edge++) {
          const next = (edge + 1) % 4;
          if (above[edge] == above[next]) continue;
          const s = (value - corners[edge]) / (corners[next] - corners[edge]);
          const [x, y] = [[s, 0], [1, s], [1 - s, 1], [0, 1 - s]][edge];
          crossings.push([f.left + (i + x) * pixels, f.top + (j + y) * pixels]);
        }
        for (let c = 0; c + 1 < crossings.length; c += 2) {
          context.moveTo(...crossings[c]);
          context.lineTo(...crossings[c + 1]);
        }
      }
    }
  }
  context.strokeStyle = colour("contour");
  context.lineWidth = 1;
  context.stroke();
}

function drawAxes(context, f, across, up) {
  context.font = TICK_FONT;
  context.fillStyle = colour("faint");
  context.strokeStyle = colour("line");
  context.lineWidth = 1;
  context.strokeRect(f.left, f.top, f.width, f.height);
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const x of ticksBetween(...view.x, Math.max(3, f.width / 90))) {
    const [px] = toPixel(x, 0);
    context.fillRect(px, f.top + f.height, 1, 4);
    context.fillText(told(Math.abs(x) < 1e-9 * (view.x[1] - view.x[0]) ? 0 : x), px, f.top + f.height + 6);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const y of ticksBetween(...view.y, Math.max(2, f.height / 60))) {
    const [, py] = toPixel(0, y);
    context.fillRect(f.left - 4, py, 4, 1);
    context.fillText(told(Math.abs(y) < 1e-9 * (view.y[1] - view.y[0]) ? 0 : y), f.left - 7, py);
  }
  context.font = "italic 14px Georgia, serif";
  context.fillStyle = colour("ink");
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.fillText(across, f.left + f.width / 2, f.top + f.height + 34);
  context.save();
  context.translate(13, f.top + f.height / 2);
  context.rotate(-Math.PI / 2);
  context.fillText(up, 0, 0);
  context.restore();
}

function drawCurve() {
  const { context, width, height } = fitted(byId("base")), f = frame();
  context.clearRect(0, 0, width, height);
  drawAxes(context, f, MODEL.axisNames[0], words("loss_axis"));
  context.save();
  context.beginPath();
  context.rect(f.left, f.top, f.width, f.height);
  context.clip();
  context.beginPath();
  let isDown = false;
  for (let px = 0; px <= f.width; px++) {
    const [x] = fromPixel(f.left + px, 0), value = loss(x);
    const py = Math.min(1e5, Math.max(-1e5, toPixel(x, value)[1]));
    if (Number.isFinite(value)) context[isDown ? "lineTo" : "moveTo"](f.left + px, py);
    isDown = Number.isFinite(value);
  }
  context.strokeStyle = colour("low");
  context.lineWidth = 2.5;
  context.lineJoin = "round";
  context.stroke();
  context.restore();
  byId("stage").dataset.drawn = view.version;
}
