// One descent: look at a point, judge it, record it, move. What is in PROGRAMS was compiled.

const STATUSES = ["CONVERGED", "MAX_STEPS", "NON_FINITE", "DIVERGED", "STALLED"];
const [CONVERGED, MAX_STEPS, NON_FINITE, DIVERGED, STALLED] = STATUSES.keys();
const NUM_PARAMS = MODEL.start.length;

/** The largest absolute entry; NaN if there is one. */
const sizeOf = (numbers) => Math.max(...numbers.map(Math.abs));
const same = (a, b) => a.every((x, k) => x == b[k] || (x != x && b[k] != b[k]));

/** Rows [x, y] in the place of those that the loss was compiled with, if the page was given some. */
let ownRows = null;

/** What a program gives; over rows of one's own the mean of what its row by row form gives. */
function evaluated(name, params) {
  if (!ownRows) return PROGRAMS[name](...params);
  let sum = null;
  for (const row of ownRows) {
    const values = PROGRAMS.ofRow[name](...params, ...row);
    sum = sum ? sum.map((total, k) => total + values[k]) : values;
  }
  return sum.map((total) => total / ownRows.length);
}

const lossAt = (params) => evaluated("loss", params)[0];

/** The loss and its gradient. */
function look(params) {
  const [loss, ...grads] = evaluated("look", params);
  return { loss, grads };
}

/** A run at its start: nothing is recorded yet. */
function begin({ rule, rate, momentum, start, tolerance = NaN }) {
  const params = Array.from(start, Number);
  const state = PROGRAMS.rules[rule].init(...params);
  const run = { rule, rate, momentum, tolerance, params, state, path: [], losses: [], gradNorms: [] };
  Object.assign(run, { rates: [], unchanged: 0, status: MAX_STEPS });
  see(run);
  return run;
}

/** Looks at where a run stands, records it, judges it. */
function see(run) {
  const { loss, grads } = look(run.params);
  Object.assign(run, { loss, grads });
  run.path.push(run.params);
  run.losses.push(loss);
  run.gradNorms.push(sizeOf(grads));
  [run.status] = PROGRAMS.judge(loss, sizeOf(grads), sizeOf(run.params), run.losses[0], run.tolerance);
}

/** Takes one step, unless the run has ended; whether it has taken it. */
function advance(run) {
  if (run.status != MAX_STEPS) return false;
  const { rule, rate, momentum, params, grads, state } = run;
  const moved = PROGRAMS.rules[rule].step(rate, momentum, ...params, ...grads, ...state);
  run.params = moved.slice(0, NUM_PARAMS);
  run.state = moved.slice(NUM_PARAMS);
  run.unchanged = same(run.params, params) ? run.unchanged + 1 : 0;
  run.rates.push(rate);
  const isStuck = run.tolerance == run.tolerance && run.unchanged > 0 && same(run.state, state);
  see(run);
  if (isStuck && run.status == MAX_STEPS) run.status = STALLED;
  return true;
}

/** The status of a run that takes no more steps. */
function statusAtLast(run, numSteps) {
  if (run.status != MAX_STEPS) return run.status;
  const [first, last] = [0, run.losses.length - 1];
  return PROGRAMS.judgeAtLast(run.losses[first], run.losses[last], run.gradNorms[first],
    run.gradNorms[last], run.unchanged, numSteps, run.tolerance)[0];
}

/** The numbers of a start: a number, an array, or an object of them; and the way back. */
function numbersOf(start) {
  if (typeof start == "number") return [[start], ([x]) => x];
  if (start === null || typeof start != "object") {
    throw new Error(`run: start must be ${NUM_PARAMS} numbers, got ${JSON.stringify(start)}.`);
  }
  if (ArrayBuffer.isView(start)) start = Array.from(start);
  const [numbers, ways] = [[], []];
  for (const key of Array.isArray(start) ? start.keys() : Object.keys(start).sort()) {
    const [inner, way] = numbersOf(start[key]);
    ways.push([key, numbers.length, numbers.length + inner.length, way]);
    numbers.push(...inner);
  }
  return [numbers, (flat) => {
    const shaped = Array.isArray(start) ? [] : {};
    for (const [key, from, to, way] of ways) shaped[key] = way(flat.slice(from, to));
    return shaped;
  }];
}

/** Runs a descent as jaxgd.descent does: N + 1 rows, the last one repeated after the end. */
function runDescent({ rule = "gradient_descent", rate = MODEL.rate, momentum = MODEL.momentum,
  start = MODEL.isNumber ? MODEL.start[0] : MODEL.start, steps = 200, tolerance = null } = {}) {
  if (!Object.hasOwn(PROGRAMS.rules, rule)) {
    throw new Error(`run: rule must be one of ${Object.keys(PROGRAMS.rules).join(", ")}, got ${rule}.`);
  }
  const [numbers, shaped] = numbersOf(start);
  if (numbers.length != NUM_PARAMS) {
    throw new Error(`run: start must be ${NUM_PARAMS} numbers, got ${JSON.stringify(start)}.`);
  }
  if (!Number.isInteger(steps) || steps < 0) {
    throw new Error(`run: steps must be a whole number, at least 0, got ${steps}.`);
  }
  for (const [name, value] of Object.entries({ rate, momentum })) {
    if (typeof value != "number") throw new Error(`run: ${name} must be a number, got ${value}.`);
  }
  const run = begin({ rule, rate, momentum, start: numbers, tolerance: tolerance ?? NaN });
  while (run.path.length <= steps && advance(run));
  const numSteps = run.path.length - 1;
  const row = (rows, t) => rows[Math.min(t, numSteps)];
  const each = Array.from({ length: steps + 1 }, (_, t) => t);
  return {
    path: each.map((t) => shaped(row(run.path, t))),
    losses: each.map((t) => row(run.losses, t)),
    grad_norms: each.map((t) => row(run.gradNorms, t)),
    num_steps: numSteps,
    status: STATUSES[statusAtLast(run, steps)],
  };
}

globalThis.jaxgd = {
  run: runDescent,
  look: (start) => look(numbersOf(start)[0]),
  hessian: (start) => hessian(numbersOf(start)[0]),
  rules: Object.keys(PROGRAMS.rules),
  engine: { MODEL, PROGRAMS, STATUSES, MAX_STEPS, NUM_PARAMS, begin, advance, statusAtLast, hessian, runDescent, lossAt,
    useRows: (rows) => { ownRows = rows; } },
};

/** The second derivatives: compiled, or else by central differences of the gradient. */
function hessian(params) {
  if ((ownRows ? PROGRAMS.ofRow : PROGRAMS).hessian) {
    const flat = evaluated("hessian", params);
    return params.map((_, k) => flat.slice(k * NUM_PARAMS, (k + 1) * NUM_PARAMS));
  }
  const rows = params.map((x, k) => {
    const step = 6e-6 * Math.max(1, Math.abs(x));
    const moved = (by) => look(params.map((y, j) => (j == k ? y + by : y))).grads;
    const [low, high] = [moved(-step), moved(step)];
    return high.map((g, j) => (g - low[j]) / (2 * step));
  });
  return rows.map((row, k) => row.map((h, j) => (h + rows[j][k]) / 2));
}
