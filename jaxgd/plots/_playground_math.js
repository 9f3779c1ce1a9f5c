// What a compiled program calls: constants, integer arithmetic, special functions, small matrices.

const KINDS = {
  uint8: Uint8Array, int16: Int16Array, int32: Int32Array,
  float32: Float32Array, float64: Float64Array,
};
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The numbers packed in base64 text, as doubles. (Not every JavaScript engine has atob.) */
function unpacked(text, kind) {
  const digits = new Uint8Array(128);
  for (let i = 0; i < 64; i++) digits[LETTERS.charCodeAt(i)] = i;
  const bytes = new Uint8Array((text.length / 4) * 3 - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0));
  for (let i = 0, j = 0; i < text.length; i += 4) {
    const [a, b, c, d] = [0, 1, 2, 3].map((k) => digits[text.charCodeAt(i + k)] || 0);
    const word = (a << 18) | (b << 12) | (c << 6) | d;
    bytes[j++] = word >> 16;
    bytes[j++] = word >> 8;
    bytes[j++] = word;
  }
  return Float64Array.from(new KINDS[kind](bytes.buffer));
}

// Numbers.

const square = (x) => x * x;
const oneMinusSquare = (x) => (1 - x) * (1 + x);
const logistic = (x) => 1 / (1 + Math.exp(-x));
const product = (a, b) => (Number.isSafeInteger(a * b) ? a * b : Math.imul(a, b));
const squareOfInteger = (x) => product(x, x);
const quotient = (a, b) => (b == 0 ? -1 : Math.trunc(a / b));
const shiftedLeft = (a, b) => (b > 31 ? 0 : a << b);
const shiftedRight = (a, b) => (b > 31 ? 0 : a >>> b);
const clipped = (place, most) => Math.min(Math.max(place, 0), most);
const within = (place, most) => (place >= 0 && place <= most ? place : NaN);
const roundedAway = (x) => Math.sign(x) * Math.floor(Math.abs(x)) + (Math.abs(x) % 1 >= 0.5 ? Math.sign(x) : 0);

function roundedToEven(x) {
  const low = Math.floor(x), rest = x - low;
  return rest < 0.5 || (rest == 0.5 && low % 2 == 0) ? low : rest >= 0.5 ? low + 1 : x;
}

// Integers of 64 bits: numbers where these are exact, else BigInts.
const exact = (bits) => (Number.isSafeInteger(Number(bits)) ? Number(bits) : bits);
const combinedBits = (a, b, combine) => exact(BigInt.asIntN(64, combine(BigInt(a), BigInt(b))));

/** Shifted to the left (1), to the right with zeros (-1) or with the sign (0). */
function shiftedLong(a, b, way) {
  const bits = way == -1 ? BigInt.asUintN(64, BigInt(a)) : BigInt.asIntN(64, BigInt(a)), by = BigInt(b);
  return exact(BigInt.asIntN(64, by > 63n && way ? 0n : way == 1 ? bits << by : bits >> by));
}

/** A number made whole, as XLA does: NaN is 0, and what is too large the largest. */
const saturated = (x, low, high) => (x != x ? 0 : Math.min(Math.max(Math.trunc(x), low), high));

const WORD = new DataView(new ArrayBuffer(8));
const KINDS_OF_WORD = {
  float64: "Float64", uint64: "BigUint64", int64: "BigInt64",
  float32: "Float32", uint32: "Uint32", int32: "Int32",
};

/** The same bits, read as another type. */
function bitsAs(x, from, to) {
  const isBig = from.endsWith("int64");
  WORD[`set${KINDS_OF_WORD[from]}`](0, isBig ? BigInt(x) : x);
  return WORD[`get${KINDS_OF_WORD[to]}`](0);
}

// The order of all doubles: -0 comes before 0, and NaN last.
const isSameInOrder = (x, y) => Object.is(x, y);
const isBeforeInOrder = (x, y) => x < y || (x == x && y != y) || (Object.is(x, -0) && Object.is(y, 0));
const isNotAfterInOrder = (x, y) => isSameInOrder(x, y) || isBeforeInOrder(x, y);

/** A whole power, multiplied in the order in which XLA does it. */
function power(x, n) {
  let result = null;
  for (let k = Math.abs(n); k > 0; x *= x) {
    if (k & 1) result = result === null ? x : result * x;
    k >>= 1;
  }
  return n == 0 ? 1 : n < 0 ? 1 / result : result;
}

/** As in C: 1 to any power is 1, and so is -1 to an infinite one. */
function pow(x, y) {
  if (x == 1 || (x == -1 && Math.abs(y) == Infinity)) return 1;
  return Math.pow(x, y);
}

function logAddExp(a, b) {
  const high = Math.max(a, b);
  return Number.isFinite(high) ? high + Math.log1p(Math.exp(Math.min(a, b) - high)) : high;
}

function polynomial(x, coefficients) {
  let value = 0;
  for (let k = coefficients.length - 1; k >= 0; k--) value = value * x + coefficients[k];
  return value;
}

// Special functions.

const ERFC_TERMS = Array.from({ length: 13 }, (_, n) => [(n * n) / 4, Math.exp(-(n * n) / 4)]);

/** exp(-x * x), without the rounding of the square. */
function gaussian(x) {
  const high = Math.round(x * 4096) / 4096;
  return Math.exp(-high * high) * Math.exp(-(x - high) * (x + high));
}

/** Of x >= 1/2: the trapezoidal rule with step 1/2, whose error is known (Chiarella, Reichel). */
function erfcOfLarge(x) {
  if (x > 28) return x != x ? NaN : 0;
  let sum = 0.5 / (x * x);
  for (let n = 1; n < 13; n++) sum += ERFC_TERMS[n][1] / (ERFC_TERMS[n][0] + x * x);
  const error = x < 2 * Math.PI ? 2 / Math.expm1(4 * Math.PI * x) : 0;
  return (x * gaussian(x) * sum) / Math.PI - error;
}

function erf(x) {
  if (Math.abs(x) >= 0.5) return Math.sign(x) * (1 - erfcOfLarge(Math.abs(x)));
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return ((2 / Math.sqrt(Math.PI)) * sum) * gaussian(x);
}

function erfc(x) {
  return x >= 0.5 ? erfcOfLarge(x) : 1 - erf(x);
}

/** Winitzki's estimate, and three steps of Halley's method. */
function erfInverse(y) {
  if (y == 0 || !(Math.abs(y) < 1)) return y == 0 ? y : Math.abs(y) == 1 ? y * Infinity : NaN;
  const size = Math.abs(y), log = Math.log((1 - size) * (1 + size)), half = 2 / (Math.PI * 0.147) + log / 2;
  let x = Math.sqrt(Math.sqrt(half * half - log / 0.147) - half);
  for (let k = 0; k < 3; k++) {
    const error = size < 0.5 ? erf(x) - size : 1 - size - erfc(x);
    const step = (error * Math.sqrt(Math.PI)) / 2 / gaussian(x);
    x -= step / (1 + x * step);
  }
  return Math.sign(y) * x;
}

// B_2k, the numbers of Bernoulli.
const BERNOULLI = [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798];

/** Stirling's series, reached by Gamma(x + 1) = x Gamma(x); on the left by reflection. */
function logGamma(x) {
  if (x <= 0 && x == Math.floor(x)) return Infinity;
  if (x < 0) return Math.log(Math.PI / Math.abs(Math.sin(Math.PI * (x - Math.round(x))))) - logGamma(1 - x);
  let shift = 1;
  for (; x < 10; x++) shift *= x;
  let series = 0;
  for (let k = 8; k >= 1; k--) series = series / (x * x) + BERNOULLI[k - 1] / (2 * k * (2 * k - 1));
  if (x == Infinity) return Infinity;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series / x - Math.log(shift);
}

function digamma(x) {
  if (x <= 0 && x == Math.floor(x)) return NaN;
  if (x < 0) return digamma(1 - x) - Math.PI / Math.tan(Math.PI * (x - Math.round(x)));
  let shift = 0;
  for (; x < 10; x++) shift += 1 / x;
  let series = 0;
  for (let k = 8; k >= 1; k--) series = (series + BERNOULLI[k - 1] / (2 * k)) / (x * x);
  return Math.log(x) - 0.5 / x - series - shift;
}

/** The sum of (q + n)^-s, by Euler and Maclaurin. */
function zeta(s, q) {
  if (s == 1) return Infinity;
  if (s < 1 || (q <= 0 && (q != Math.floor(q) || s != Math.floor(s)))) return NaN;
  if (q <= 0) return Infinity;
  let sum = 0;
  for (let n = 0; n < 10; n++) sum += Math.pow(q + n, -s);
  const y = q + 10;
  let term = s * Math.pow(y, -s - 1), tail = 0;
  for (let k = 1; k <= 9; k++) {
    term /= k == 1 ? 2 : (2 * k) * (2 * k - 1);
    tail += BERNOULLI[k - 1] * term;
    term *= ((s + 2 * k - 1) * (s + 2 * k)) / (y * y);
  }
  return sum + Math.pow(y, 1 - s) / (s - 1) + Math.pow(y, -s) / 2 + tail;
}

function polygamma(n, x) {
  if (n == 0) return digamma(x);
  let factorial = 1;
  for (let k = 2; k <= n; k++) factorial *= k;
  return (n % 2 ? 1 : -1) * factorial * zeta(n + 1, x);
}

/** exp(-|x|) I_n(x): the mean of exp(x cos t - |x|) cos(n t) over equal steps of t. */
function besselI(x, n) {
  const size = Math.abs(x), sign = n && x < 0 ? -1 : 1;
  if (size > 1e4) {  // the series for large arguments
    const m = 4 * n * n;
    let term = 1, sum = 1;
    for (let k = 1; k < 6; k++) sum += term *= (-(m - (2 * k - 1) ** 2)) / (8 * size * k);
    return (sign * sum) / Math.sqrt(2 * Math.PI * size);
  }
  const steps = Math.ceil(30 + 10 * Math.sqrt(size));
  let sum = 0;
  for (let k = 0; k < steps; k++) {
    const t = (2 * Math.PI * k) / steps;
    sum += Math.exp(-2 * size * Math.sin(t / 2) ** 2) * Math.cos(n * t);
  }
  return (sign * sum) / steps;
}

// Small matrices, row after row in a flat array.

function solveTriangle(a, b, out, n, m, isLeft, isLower, isTransposed, hasUnitDiagonal) {
  const size = isLeft ? n : m, isFlipped = isTransposed !== !isLeft;
  const entry = (i, j) => (isFlipped ? a[j * size + i] : a[i * size + j]);
  const goesDown = isLower !== isFlipped;
  for (let line = 0; line < (isLeft ? m : n); line++) {
    const place = (k) => (isLeft ? k * m + line : line * m + k);
    for (let count = 0; count < size; count++) {
      const k = goesDown ? count : size - 1 - count;
      let value = b[place(k)];
      for (let j = goesDown ? 0 : k + 1; j < (goesDown ? k : size); j++) value -= entry(k, j) * out[place(j)];
      out[place(k)] = hasUnitDiagonal ? value : value / entry(k, k);
    }
  }
}

/** Gaussian elimination with row exchanges. */
function factor(a, out, pivots, order, n, m) {
  for (let i = 0; i < n * m; i++) out[i] = a[i];
  for (let i = 0; i < n; i++) order[i] = i;
  for (let k = 0; k < Math.min(n, m); k++) {
    let best = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(out[i * m + k]) > Math.abs(out[best * m + k])) best = i;
    pivots[k] = best;
    [order[k], order[best]] = [order[best], order[k]];
    for (let j = 0; j < m; j++) [out[k * m + j], out[best * m + j]] = [out[best * m + j], out[k * m + j]];
    for (let i = k + 1; i < n; i++) {
      const ratio = (out[i * m + k] /= out[k * m + k]);
      for (let j = k + 1; j < m; j++) out[i * m + j] -= ratio * out[k * m + j];
    }
  }
}

function permutation(pivots, out, count, size) {
  for (let i = 0; i < size; i++) out[i] = i;
  for (let k = 0; k < count; k++) [out[k], out[pivots[k]]] = [out[pivots[k]], out[k]];
}

function cholesky(a, out, n) {
  out.fill(0);
  for (let j = 0; j < n; j++) {
    for (let i = j; i < n; i++) {
      let value = a[i * n + j];
      for (let k = 0; k < j; k++) value -= out[i * n + k] * out[j * n + k];
      out[i * n + j] = i == j ? Math.sqrt(value) : value / out[j * n + j];
    }
  }
}

/** The largest entries of each line and their places; of equal ones, the first. */
function highest(array, values, places, length, stride, count) {
  for (let start = 0, line = 0; start < array.length; start++) {
    if (Math.floor(start / stride) % length != 0) continue;
    const order = Array.from({ length }, (_, k) => k);
    const at = (k) => array[start + k * stride];
    order.sort((i, j) => (at(i) != at(i)) == (at(j) != at(j)) ? at(j) - at(i) || i - j : at(i) != at(i) ? -1 : 1);
    const [outer, inner] = [Math.floor(line / stride), line % stride];
    for (let k = 0; k < count; k++) {
      const place = (outer * count + k) * stride + inner;
      [values[place], places[place]] = [at(order[k]), order[k]];
    }
    line++;
  }
}

/** Sorts lines of arrays by the first few of them; NaN comes last. */
function sortLines(arrays, outs, length, stride, numKeys) {
  const order = Array.from({ length }, (_, k) => k);
  for (let start = 0; start < arrays[0].length; start++) {
    if (Math.floor(start / stride) % length != 0) continue;
    const at = (array, k) => array[start + k * stride];
    const indices = order.slice().sort((i, j) => {
      for (let key = 0; key < numKeys; key++) {
        const [x, y] = [at(arrays[key], i), at(arrays[key], j)];
        if (x < y || (x == x && y != y)) return -1;
        if (x > y || (x != x && y == y)) return 1;
      }
      return i - j;
    });
    arrays.forEach((array, a) => indices.forEach((k, place) => { outs[a][start + place * stride] = at(array, k); }));
  }
}
