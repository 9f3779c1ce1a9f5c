// The page: runs, controls, hands, keys, and one loop that draws them.

const COLOURS = ["#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7b3fa0", "#a6761d", "#b2182b", "#66a61e", "#0b7285", "#8d5a97"];
const TOLERANCE = 1e-8;
const MOST_STEPS = 5000;
const MOST_RUNS = 10;
const REACH = 14;  // pixels around a start in which it is grabbed
const page = {
  runs: [], picked: null, rule: "gradient_descent", rate: MODEL.rate, momentum: MODEL.momentum,
  speed: 20, isPlaying: false, owed: 0, last: 0, cursor: null, grabbed: null, language: MODEL.language,
  isStale: true, timings: { click: NaN, frames: [], intervals: [] },
};

// Words.

function words(key, values = {}) {
  const text = MODEL.texts[page.language][key];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function speak() {
  document.documentElement.lang = page.language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words(element.dataset.label));
    if (element.tagName == "BUTTON") element.title = words(element.dataset.label);
  }
  byId("title").textContent = document.title = MODEL.title || words("title");
  byId("language").textContent = words("language");
  const held = MODEL.held.length ? ` ${words("held", { numbers: MODEL.held.join(", ") })}` : "";
  byId("hint").textContent = words(IS_CURVE ? "hint_one" : "hint_two") + held;
  byId("stage").setAttribute("aria-label", words("plot"));
  for (const rule of jaxgd.rules) byId(`rule-${rule}`).textContent = nameOf(rule);
  byId("theme").textContent = words(document.body.dataset.theme == "dark" ? "light" : "dark");
  page.isStale = true;
  showControls();
  if (IS_CURVE) drawCurve();
}

const nameOf = (rule) => words(rule == "momentum" ? "momentum_rule" : rule);

// Runs.

function begun(start, rule = page.rule, rate = page.rate, momentum = page.momentum) {
  return begin({ rule, rate, momentum, start, tolerance: TOLERANCE });
}

function add(start) {
  if (page.runs.length == MOST_RUNS) page.runs.shift();
  const used = new Set(page.runs.map((run) => run.colour));
  const run = { colour: COLOURS.find((c) => !used.has(c)), start: [...start], descent: begun(start) };
  page.runs.push(run);
  pick(run);
  return run;
}

function pick(run) {
  page.picked = run;
  if (run) Object.assign(page, { rule: run.descent.rule, rate: run.descent.rate, momentum: run.descent.momentum });
  page.isStale = true;
  showControls();
}

/** The same run from its start, or with another rule, for as many steps as it had taken. */
function again(run, { keep = true, start = run.start } = {}) {
  const taken = run.descent.path.length - 1;
  run.wanted = Math.max(keep ? run.wanted || 0 : 0, keep ? taken : 0);
  run.start = [...start];
  run.descent = begun(start);
  while (run.descent.path.length <= run.wanted && advance(run.descent));
  page.isStale = true;
}

const isOver = (run) => run.descent.status != MAX_STEPS || run.descent.path.length > MOST_STEPS;

function stepAll() {
  for (const run of page.runs) if (!isOver(run)) advance(run.descent);
  for (const run of page.runs) run.wanted = 0;
}

/** The largest curvature, and the rate up to which a rule is stable there. */
function boundAt(params, rule, momentum) {
  const rows = hessian(params);
  const sharpness = rows.length == 1 ? rows[0][0]
    : (rows[0][0] + rows[1][1]) / 2 + Math.hypot((rows[0][0] - rows[1][1]) / 2, rows[0][1]);
  const factor = { gradient_descent: 2, momentum: 2 + 2 * momentum,
    nesterov: (2 + 2 * momentum) / (1 + 2 * momentum) }[rule];
  const start = { gradient_descent: "2", momentum: "(2 + 2μ)", nesterov: "(2 + 2μ) / (1 + 2μ)" }[rule];
  const formula = start && `${start} / ${words("sharpness")}`;
  return { sharpness, bound: sharpness > 0 && factor ? factor / sharpness : NaN, formula };
}

function statusOf(run) {
  const { descent } = run, step = descent.path.length - 1;
  const values = { step: step.toLocaleString(), loss: told(descent.loss), tolerance: told(TOLERANCE) };
  const name = STATUSES[isOver(run) ? statusAtLast(descent, step) : MAX_STEPS];
  if (!isOver(run)) return ["MOVING", words("MOVING", values)];
  if (name == "DIVERGED") {
    const lowest = descent.losses.indexOf(Math.min(...descent.losses.filter(Number.isFinite)));
    const { bound, formula } = boundAt(descent.path[lowest], descent.rule, descent.momentum);
    const ratio = descent.rate / bound;
    if (ratio > 1) return [name, words("DIVERGED_because", { ...values, ratio: told(ratio, 2), formula })];
  }
  return [name, words(name, values)];
}

// Controls.

const RATES = [Math.log(MODEL.rate / 300), Math.log(MODEL.rate * 300)];
const SPEEDS = [0, Math.log(1000)];
const onScale = (value, [low, high]) => (1000 * (Math.log(value) - low)) / (high - low);
const offScale = (place, [low, high]) => Math.exp(low + (place / 1000) * (high - low));
// 1 - momentum moves in equal ratios, from 1 to 0.001.
const momentumOf = (place) => (place == 0 ? 0 : Number((1 - 10 ** ((-3 * place) / 1000)).toPrecision(3)));
const placeOfMomentum = (momentum) => (-1000 / 3) * Math.log10(1 - momentum);
const rounded = (x, digits = 3) => Number(x.toPrecision(digits));

function showControls() {
  byId("play").textContent = words(page.isPlaying ? "pause" : "play");
  byId("rate").value = onScale(page.rate, RATES);
  if (document.activeElement != byId("rate-value")) byId("rate-value").value = String(page.rate);
  byId("rate").setAttribute("aria-valuetext", told(page.rate, 4));
  byId("momentum").value = placeOfMomentum(page.momentum);
  byId("momentum-value").textContent = told(page.momentum, 3);
  byId("momentum").setAttribute("aria-valuetext", told(page.momentum, 3));
  byId("speed").value = onScale(page.speed, SPEEDS);
  byId("speed-value").textContent = words("per_second", { count: Math.round(page.speed).toLocaleString() });
  const usesMomentum = ["momentum", "nesterov"].includes(page.rule);
  byId("momentum").disabled = !usesMomentum;
  byId("momentum-box").classList.toggle("off", !usesMomentum);
  for (const input of document.querySelectorAll("[name=rule]")) input.checked = input.value == page.rule;
}

function changed(change) {
  Object.assign(page, change);
  if (page.picked) again(page.picked);
  showControls();
  refresh();
}

/** Shows at once what a hand has changed. */
function refresh() {
  page.isStale = true;
  draw();
}

function play(isPlaying) {
  Object.assign(page, { isPlaying, owed: 0, last: 0 });
  if (isPlaying && !page.runs.length) add(MODEL.start);
  if (isPlaying && page.runs.every(isOver)) for (const run of page.runs) again(run, { keep: false });
  showControls();
}

function connectControls() {
  byId("rules").innerHTML = jaxgd.rules.map((rule) =>
    `<label><input type="radio" name="rule" value="${rule}"><span id="rule-${rule}"></span></label>`).join("");
  byId("rules").addEventListener("change", (event) => changed({ rule: event.target.value }));
  byId("rate").addEventListener("input", (event) => changed({ rate: rounded(offScale(event.target.value, RATES)) }));
  byId("rate-value").addEventListener("change", (event) => {
    const rate = Number(event.target.value.replace(",", "."));
    if (rate > 0 && Number.isFinite(rate)) changed({ rate });
    event.target.value = String(page.rate);
  });
  byId("momentum").addEventListener("input", (event) => changed({ momentum: momentumOf(Number(event.target.value)) }));
  byId("speed").addEventListener("input", (event) => {
    page.speed = offScale(event.target.value, SPEEDS);
    showControls();
  });
  if (MODEL.data) connectData();
  byId("play").addEventListener("click", () => play(!page.isPlaying));
  byId("step").addEventListener("click", () => { play(false); stepAll(); refresh(); });
  byId("reset").addEventListener("click", () => {
    play(false);
    for (const run of page.runs) {
      run.wanted = 0;
      run.descent = begun(run.start, run.descent.rule, run.descent.rate, run.descent.momentum);
    }
    refresh();
  });
  byId("clear").addEventListener("click", () => { play(false); page.runs = []; pick(null); refresh(); });
  byId("language").addEventListener("click", () => { page.language = page.language == "en" ? "zh" : "en"; speak(); refresh(); });
  byId("theme").addEventListener("click", () => setTheme(document.body.dataset.theme != "dark"));
  byId("fit").addEventListener("click", () => { fit(); page.isStale = true; });
  for (const [id, factor] of [["zoom-in", 0.7], ["zoom-out", 1 / 0.7]]) {
    byId(id).addEventListener("click", () => {
      const f = frame();
      zoom(factor, f.left + f.width / 2, f.top + f.height / 2);
      page.isStale = true;
    });
  }
  for (const id of ["tangent", "newton"]) byId(id).addEventListener("change", refresh);
  byId("views").hidden = !IS_CURVE;
  byId("scale").hidden = IS_CURVE;
}

function connectData() {
  document.querySelector(".data").hidden = false;
  document.body.classList.add("with-data");
  byId("own").hidden = !PROGRAMS.ofRow;
  page.rows = MODEL.data;
  const use = (rows) => {
    page.rows = rows;
    useRows(rows == MODEL.data ? null : rows);
    play(false);
    for (const run of page.runs) again(run, { keep: false });
    fit();
    refresh();
  };
  byId("own-apply").addEventListener("click", () => {
    const lines = byId("own-data").value.split("\n").filter((line) => line.trim());
    const rows = lines.map((line) => line.trim().split(/[\s,;]+/).map(Number));
    const bad = rows.findIndex((row) => row.length != 2 || !row.every(Number.isFinite));
    const said = bad >= 0 ? ["own_bad", { line: bad + 1 }] : rows.length < 2 ? ["own_few"] : ["own_ok", { count: rows.length }];
    byId("own-said").textContent = words(...said);
    if (said[0] == "own_ok") use(rows);
  });
  byId("own-back").addEventListener("click", () => { byId("own-said").textContent = ""; use(MODEL.data); });
}

function setTheme(isDark) {
  document.body.dataset.theme = isDark ? "dark" : "light";
  byId("theme").textContent = words(isDark ? "light" : "dark");
  page.isStale = true;
  redrawSurface();
}

// Hands and keys.

function pointOf(event) {
  const box = byId("stage").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

const startAt = (px, py) => fromPixel(px, py).slice(0, MODEL.start.length);

/** The run whose start lies under the hand. */
function startUnder(px, py) {
  return page.runs.findLast((run) => {
    const [x, y] = placeOf(run.start, run.descent.losses[0]);
    return Math.hypot(x - px, y - py) < REACH;
  });
}

function drop(start) {
  const isFinite = Number.isFinite(loss(...start));
  const run = add(start.map((x, k) => roundedTo(x, k)));
  if (isFinite) byId("status").textContent = words("dropped", { point: pointText(run.start) });
  return run;
}

/** A number as exact as the picture can show it. */
function roundedTo(x, k) {
  const [low, high] = k == 0 ? view.x : view.y, digits = Math.max(0, 3 - Math.floor(Math.log10(high - low)));
  return Number(x.toFixed(Math.min(digits, 15)));
}

const pointText = (point) => `(${point.map((x) => told(x)).join(", ")})`;

function connectHands() {
  const stage = byId("stage"), fingers = new Map();
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button")) return;
    const began = performance.now(), at = pointOf(event);
    fingers.set(event.pointerId, at);
    stage.setPointerCapture(event.pointerId);
    if (fingers.size == 2) {  // the second finger zooms: what the first one dropped goes
      if (page.grabbed?.isNew) remove(page.grabbed.run);
      page.grabbed = null;
      return;
    }
    if (event.button == 2 || event.shiftKey) return;
    const under = startUnder(...at);
    page.grabbed = under ? { run: under } : { run: drop(startAt(...at)), isNew: true };
    if (under) pick(under);
    stage.classList.add("grabbing");
    draw();
    page.timings.click = performance.now() - began;
  });
  stage.addEventListener("pointermove", (event) => {
    const at = pointOf(event), before = fingers.get(event.pointerId);
    if (!before) return stage.classList.toggle("over", Boolean(startUnder(...at)));
    fingers.set(event.pointerId, at);
    if (fingers.size == 2) {
      const other = [...fingers].find(([id]) => id != event.pointerId)[1];
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoom(apart(before) / Math.max(1, apart(at)), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
      pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    } else if (page.grabbed) {
      page.grabbed.hasMoved = true;
      const start = startAt(...at).map(roundedTo);
      const run = page.grabbed.run;
      again(run, { start });
    } else pan(at[0] - before[0], at[1] - before[1]);
    page.isStale = true;
  });
  const release = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    if (page.grabbed?.isNew && fingers.size == 0) play(true);
    if (fingers.size == 0) page.grabbed = null;
    stage.classList.remove("grabbing");
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY * 0.002))), ...pointOf(event));
    page.isStale = true;
  }, { passive: false });
  stage.addEventListener("keydown", onKey);
  stage.addEventListener("focus", () => { page.isStale = true; });
  stage.addEventListener("blur", () => { page.cursor = null; page.isStale = true; });
}

/** Arrows move a cross, Enter drops a start there; space plays, s steps, + and - zoom. */
function onKey(event) {
  if (event.target != byId("stage") || event.ctrlKey || event.metaKey || event.altKey) return;
  const f = frame(), centre = [f.left + f.width / 2, f.top + f.height / 2];
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const actions = {
    Enter: () => { drop(startAt(...(page.cursor || centre))); play(true); },
    " ": () => play(!page.isPlaying),
    s: () => byId("step").click(), r: () => byId("reset").click(), f: () => byId("fit").click(),
    "+": () => byId("zoom-in").click(), "=": () => byId("zoom-in").click(), "-": () => byId("zoom-out").click(),
    Delete: () => page.picked && remove(page.picked), Backspace: () => page.picked && remove(page.picked),
  };
  if (move) {
    const length = event.shiftKey ? 40 : 8, [x, y] = page.cursor || centre;
    page.cursor = [Math.min(f.left + f.width, Math.max(f.left, x + length * move[0])),
      Math.min(f.top + f.height, Math.max(f.top, y + length * move[1]))];
  } else if (actions[event.key]) actions[event.key]();
  else return;
  event.preventDefault();
  page.isStale = true;
}

function remove(run) {
  page.runs = page.runs.filter((other) => other != run);
  pick(page.runs.at(-1) || null);
  refresh();
}
