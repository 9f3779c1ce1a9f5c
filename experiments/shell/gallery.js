"use strict";
// A figure brings Plotly's own buttons and slider. Here they become buttons and sliders of the
// page, which the keyboard and a screen reader reach; a figure is drawn once it comes into sight.

const NARROW = 600; // pixels: below, the two halves of a figure stand one above the other
const MOST_SOLIDS = 8; // browsers give up the oldest of some 16 WebGL contexts without a word
const still = matchMedia("(prefers-reduced-motion: reduce)");
const root = document.documentElement;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// --- languages: an element carries its other texts in data-zh, what the script says is in TEXTS

const TEXTS = JSON.parse(document.getElementById("texts").textContent);
const languageButton = document.getElementById("language");
const spoken = []; // what to say again in another language

function words(text, ...values) {
  let i = 0;
  const said = TEXTS[root.lang][text] ?? text;
  return said.replace(/\{\d?\}/g, (gap) => values[gap === "{}" ? i++ : Number(gap[1])]);
}

function says(element, text) {
  spoken.push(() => { element.textContent = words(text); });
  element.textContent = words(text);
  return element;
}

function setLanguage(language) {
  root.lang = language;
  for (const element of document.querySelectorAll("[data-zh]")) {
    if (language === "en" && element.dataset.en === undefined) continue; // as it was written
    element.dataset.en ??= element.innerHTML;
    element.innerHTML = element.dataset[language];
  }
  languageButton.textContent = language === "en" ? "中文" : "English";
  search.placeholder = words("a word, a number, an id");
  for (const speak of spoken) speak();
}

// --- light and dark

const themeButton = document.getElementById("theme");

function setTheme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  themeButton.setAttribute("aria-pressed", String(dark));
  for (const plot of drawn) Plotly.relayout(plot, themeOf(plot.layout));
}

function themeOf(layout) {
  const style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const update = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    "font.color": colour("ink"),
    "hoverlabel.bgcolor": colour("raised"),
    "hoverlabel.font.color": colour("ink"),
    "hoverlabel.bordercolor": colour("accent"),
  };
  const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  if (layout.scene) axes.push("scene.xaxis", "scene.yaxis", "scene.zaxis");
  for (const axis of axes) {
    update[`${axis}.exponentformat`] = "power";
    for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) {
      update[`${axis}.${part}`] = colour("grid");
    }
    if (axis.startsWith("scene")) update[`${axis}.color`] = colour("ink");
  }
  return update;
}

// --- figures

const drawn = new Set();
const inSight = new Set();

class GalleryFigure {
  constructor(box) {
    this.box = box;
    this.plot = box.querySelector(".plot");
    this.controls = box.querySelector(".controls");
  }

  read() {
    const figure = JSON.parse(this.box.querySelector("script").textContent);
    const layout = figure.layout;
    this.solid = Boolean(layout.scene && figure.data.some((trace) => trace.type === "surface"));
    this.narrow = layout.meta.narrow;
    this.wide = Object.fromEntries(
      Object.keys(this.narrow).map((key) => [key, valueAt(layout, key)]));
    this.isNarrow = this.plot.clientWidth < NARROW;
    if (this.isNarrow) {
      for (const [key, value] of Object.entries(this.narrow)) setAt(layout, key, value);
    }
    this.start = structuredClone({
      camera: layout.scene?.camera,
      ranges: ["xaxis", "yaxis", "xaxis2", "yaxis2"]
        .filter((axis) => layout[axis])
        .map((axis) => [axis, layout[axis].range ?? null]),
    });
    if (layout.height) this.plot.style.height = `${layout.height}px`;
    this.plot.classList.toggle("tall", "xaxis2.domain" in this.narrow);
    this.plot.classList.toggle("chain", layout.meta.width > 0);
    this.plot.style.minWidth = `${layout.meta.width}px`;
    this.buildControls(layout.updatemenus ?? [], layout.sliders ?? []);
    for (const key of ["updatemenus", "sliders", "title", "height"]) delete layout[key];
    layout.autosize = true;
    const cartesian = "xaxis2.domain" in this.narrow;
    layout.margin = cartesian ? { l: 55, r: 15, t: 40, b: 50 } : { l: 5, r: 5, t: 30, b: 10 };
    if (this.solid) this.turnByKeys();
    return figure;
  }

  async draw() {
    loadPlotly();
    if (this.solid) makeRoom(this);
    drawn.add(this.plot);
    const config = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
    const { data, layout, frames } = this.figure;
    await Plotly.newPlot(this.plot, data, layout, config);
    if (frames) await Plotly.addFrames(this.plot, frames);
    await Plotly.relayout(this.plot, themeOf(layout));
    this.plot.on("plotly_animatingframe", (event) => this.follow(event.name));
    this.open?.();
    delete this.open;
    this.plot.dataset.drawn = "true";
  }

  resize() {
    const isNarrow = this.plot.clientWidth < NARROW;
    if (isNarrow === this.isNarrow || !drawn.has(this.plot)) return;
    this.isNarrow = isNarrow;
    Plotly.relayout(this.plot, this.shape());
  }

  purge() {
    // Plotly keeps what was turned and chosen in the very data and layout it was given.
    this.figure = { ...this.figure, data: this.plot.data, layout: this.plot.layout };
    Plotly.purge(this.plot);
    drawn.delete(this.plot);
    delete this.plot.dataset.drawn;
  }

  shape() {
    return structuredClone(this.isNarrow ? this.narrow : this.wide);
  }

  buildControls(menus, sliders) {
    for (const menu of menus) {
      const plays = menu.buttons.some((button) => button.method === "animate");
      if (plays && still.matches) continue;
      const group = make("div", { className: "choice" });
      menu.buttons.forEach((button, i) => {
        const element = says(make("button", { type: "button" }), button.label);
        if (menu.showactive !== false) {
          element.setAttribute("aria-pressed", String(i === (menu.active ?? 0)));
        }
        element.addEventListener("click", () => {
          if (menu.showactive !== false) {
            for (const other of group.children) {
              other.setAttribute("aria-pressed", String(other === element));
            }
          }
          this.call(button.method, button.args);
        });
        group.append(element);
      });
      this.controls.append(group);
    }
    for (const slider of sliders) this.addSlider(slider);
    const tools = make("div", { className: "tools" });
    const tool = (label, action) => {
      const element = says(make("button", { type: "button" }), label);
      element.addEventListener("click", action);
      tools.append(element);
    };
    tool("Reset view", () => this.reset());
    tool("Save PNG", () => Plotly.downloadImage(this.plot, { filename: this.box.id, scale: 2 }));
    if (document.fullscreenEnabled) tool("Full screen", () => this.fillScreen());
    this.controls.append(tools);
  }

  call(method, args) {
    // Plotly writes into what it is given, so it gets a copy; and it rejects, with no reason, the
    // promise of an animation that another one interrupts.
    Plotly[method](this.plot, ...structuredClone(args))?.catch((reason) => {
      if (reason !== undefined) throw reason;
    });
  }

  addSlider(slider) {
    const names = slider.steps.map((step) => step.label);
    const prefix = slider.currentvalue.prefix;
    const input = make("input", { type: "range", min: 0, max: names.length - 1, step: 1 });
    const output = make("output");
    input.value = slider.active;
    input.setAttribute("aria-label", `Shown ${prefix.trim() || "moment"}`);
    this.follow = (name) => {
      const index = names.indexOf(name);
      if (index >= 0) input.value = index;
      output.textContent = `${words(prefix.trim())} ${name}`.trim();
      input.setAttribute("aria-valuetext", output.textContent);
    };
    spoken.push(() => this.follow(names[input.value]));
    this.follow(names[slider.active]);
    // The answer is not shown before the question: a player opens at its first step.
    this.open = () => {
      input.value = 0;
      input.dispatchEvent(new Event("input"));
    };
    input.addEventListener("input", () => {
      const step = slider.steps[input.value];
      this.follow(step.label);
      this.call(step.method, step.args);
    });
    this.controls.append(make("div", { className: "steps" }, input, output));
    if (still.matches) {
      const note = "Your system asks for no motion: move the slider instead of playing.";
      this.box.querySelector(".notes").append(says(make("li"), note));
    }
  }

  reset() {
    const update = {};
    if (this.start.camera) update["scene.camera"] = structuredClone(this.start.camera);
    for (const [axis, range] of this.start.ranges) {
      update[range ? `${axis}.range` : `${axis}.autorange`] = range ? [...range] : true;
    }
    Plotly.relayout(this.plot, update);
  }

  async fillScreen() {
    await (document.fullscreenElement ? document.exitFullscreen() : this.box.requestFullscreen());
  }

  turnByKeys() {
    this.plot.setAttribute("role", "application");
    this.plot.setAttribute("aria-label",
      `${this.plot.getAttribute("aria-label")} Arrow keys turn it, plus and minus come nearer and go away.`);
    this.plot.addEventListener("keydown", (event) => {
      const turn = { ArrowLeft: [-0.12, 0, 1], ArrowRight: [0.12, 0, 1], ArrowUp: [0, 0.1, 1],
        ArrowDown: [0, -0.1, 1], "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1] }[event.key];
      if (!turn || !drawn.has(this.plot)) return;
      event.preventDefault();
      const { x, y, z } = this.plot._fullLayout.scene.camera.eye;
      const radius = Math.hypot(x, y, z) * turn[2];
      const around = Math.atan2(y, x) + turn[0];
      const up = Math.min(1.5, Math.max(-1.5, Math.asin(z / Math.hypot(x, y, z)) + turn[1]));
      Plotly.relayout(this.plot, { "scene.camera.eye": {
        x: radius * Math.cos(up) * Math.cos(around),
        y: radius * Math.cos(up) * Math.sin(around),
        z: radius * Math.sin(up),
      } });
    });
  }
}

function valueAt(object, path) {
  return path.split(".").reduce((value, key) => value?.[key], object) ?? null;
}

function setAt(object, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  keys.reduce((inner, key) => (inner[key] ??= {}), object)[last] = value;
}

function makeRoom(wanted) {
  const solids = [...figures.values()].filter((f) => f.solid && f !== wanted && drawn.has(f.plot));
  const hidden = solids.filter((figure) => !inSight.has(figure.plot));
  while (solids.length >= MOST_SOLIDS && hidden.length) {
    const oldest = hidden.shift();
    solids.splice(solids.indexOf(oldest), 1);
    oldest.purge();
  }
}

// Five megabytes of script: read when the first figure is near, after the page itself is there.
function loadPlotly() {
  if (window.Plotly) return;
  document.head.append(make("script", { textContent: document.getElementById("plotly").textContent }));
}

const figures = new Map();
const watcher = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) inSight.add(target);
    else inSight.delete(target);
    if (isIntersecting && !drawn.has(target)) figures.get(target).draw();
  }
}, { rootMargin: "400px 0px" });

// --- search

const sections = [...document.querySelectorAll("section.experiment")];
const found = document.getElementById("found");
const search = document.getElementById("search");
const errata = document.getElementById("errata");
function lower(element) {
  const others = [element, ...element.querySelectorAll("[data-zh]")];
  const texts = others.flatMap(({ dataset }) => [dataset.zh ?? "", dataset.en ?? ""]);
  return [element.textContent, ...texts].join(" ").toLowerCase();
}

function filter() {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (text) => terms.every((word) => text.includes(word));
  let numSections = 0;
  let numRows = 0;
  for (const section of sections) {
    const prose = [...section.querySelectorAll(".name, h2, h3, .expectation")].map(lower).join(" ");
    const whole = has(prose);
    let any = whole;
    for (const area of section.querySelectorAll(".scroll")) {
      const titled = whole || has(lower(area.querySelector("caption")));
      let shown = 0;
      for (const row of area.querySelectorAll("tbody tr")) {
        const isWrong = !row.dataset.kind || ["erratum", "OFF"].includes(row.dataset.kind);
        const wanted = isWrong || errata?.getAttribute("aria-pressed") !== "true";
        row.hidden = !(wanted && (titled || has(lower(row))));
        shown += !row.hidden;
      }
      area.hidden = shown === 0;
      const folded = area.closest("details");
      if (folded) {
        folded.hidden = area.hidden;
        folded.open = terms.length > 0 && !whole && shown > 0;
      }
      numRows += shown;
      any ||= shown > 0;
    }
    for (const figure of section.querySelectorAll("figure")) figure.hidden = !whole;
    section.hidden = !any;
    numSections += any;
    document.querySelector(`nav a[href="#${section.id}"]`).parentElement.hidden = !any;
  }
  found.textContent = terms.length
    ? (numSections ? words("{} sections, {} rows", numSections, numRows) : words("Nothing found")) : "";
}

// --- start

search.addEventListener("input", filter);
errata?.addEventListener("click", () => {
  const only = errata.getAttribute("aria-pressed") !== "true";
  errata.setAttribute("aria-pressed", String(only));
  filter();
});
const contents = document.querySelector("nav details");
const isPhone = matchMedia("(max-width: 52rem)");
if (isPhone.matches) contents.open = false;
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    if (search.value) { search.value = ""; filter(); }
    if (isPhone.matches) contents.open = false;
    history.pushState(null, "", link.hash);
    const target = document.querySelector(link.hash);
    target.scrollIntoView();
    // Reading goes on where the link led, for the keyboard too.
    (target.querySelector("h2[tabindex]") ?? target).focus({ preventScroll: true });
  });
}
const marker = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const link = document.querySelector(`nav a[href="#${target.id}"]`);
    link.setAttribute("aria-current", String(isIntersecting));
  }
}, { rootMargin: "-30% 0px -65% 0px" });
for (const section of sections) marker.observe(section);

for (const box of document.querySelectorAll("figure.interactive")) {
  const figure = new GalleryFigure(box);
  figures.set(figure.plot, figure);
}
addEventListener("load", () => {
  // Controls first, so that nothing moves when a figure is drawn.
  for (const figure of figures.values()) figure.figure = figure.read();
  for (const plot of figures.keys()) watcher.observe(plot);
});
addEventListener("resize", () => {
  for (const figure of figures.values()) figure.resize();
});
// Plotly watches the window, whose size a full screen may leave as it is.
document.addEventListener("fullscreenchange", () => requestAnimationFrame(() => {
  for (const plot of inSight) if (drawn.has(plot)) Plotly.Plots.resize(plot);
}));
const wantsDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(wantsDark.matches);
wantsDark.addEventListener("change", () => setTheme(wantsDark.matches));
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    const isLarge = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isLarge));
    button.closest("figure").classList.toggle("large", isLarge);
  });
}
says(themeButton, "Dark");
languageButton.addEventListener("click", () => setLanguage(root.lang === "en" ? "zh" : "en"));
setLanguage(root.lang);
themeButton.addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));
