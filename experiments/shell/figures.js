"use strict";
// A figure brings Plotly's own buttons and slider. Here they become buttons and sliders of the
// page, which the keyboard and a screen reader reach; a figure is drawn once it comes into sight.

const NARROW = 600; // pixels: below, the two halves of a figure stand one above the other
const MOST_SOLIDS = 8; // browsers give up the oldest of some 16 WebGL contexts without a word

const drawn = new Set();
const inSight = new Set();

class GalleryFigure {
  constructor(box) {
    this.box = box;
    this.plot = box.querySelector(".plot");
    this.controls = box.querySelector(".controls");
  }

  read() {
    const figure = JSON.parse(this.box.querySelector("script").textContent, arrayOnce());
    const layout = figure.layout;
    this.texts = [...textsOf(figure.data), ...textsOf(figure.frames ?? []), ...textsOf(layout)];
    spoken.push(() => this.speak());
    this.translate();
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
    for (const [key, value] of Object.entries(themeOf(layout))) setAt(layout, key, value);
    await Plotly.newPlot(this.plot, data, layout, config);
    if (frames) await Plotly.addFrames(this.plot, frames);
    this.plot.on("plotly_animatingframe", (event) => this.follow(event.name));
    this.open?.();
    delete this.open;
    this.plot.dataset.drawn = "true";
  }

  translate() {
    for (const { holder, key, text } of this.texts) {
      const said = (each) => (key === "hovertemplate" ? hovering(each) : words(each));
      holder[key] = Array.isArray(text) ? text.map(said) : said(text);
    }
  }

  speak() {
    this.translate();
    if (!drawn.has(this.plot)) return;
    this.purge();
    this.open ??= this.show; // the moment that was shown, and not the last one
    this.draw();
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
    const label = () => input.setAttribute("aria-label", words(prefix.trim() || "stage"));
    spoken.push(label);
    label();
    this.follow = (name) => {
      const index = names.indexOf(name);
      if (index >= 0) input.value = index;
      output.textContent = prefix ? words(`${prefix.trim()} {}`, name) : words(name);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    spoken.push(() => this.follow(names[input.value]));
    this.follow(names[slider.active]);
    this.show = () => input.dispatchEvent(new Event("input"));
    // The answer is not shown before the question: a player opens at its first step.
    this.open = () => {
      input.value = 0;
      this.show();
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
    const keys = "Arrow keys turn it, plus and minus come nearer and go away.";
    const describe = () => this.plot.setAttribute("aria-description", words(keys));
    spoken.push(describe);
    describe();
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

// Reads arrays that are written once: "#3" is the one of the third place, counted from 0.
function arrayOnce() {
  const arrays = [];
  return (key, value) => {
    if (key === "bdata") arrays.push(value = value.startsWith("#") ? arrays[value.slice(1)] : value);
    return value;
  };
}

// What hovers: "loss: %{y}" and the name of a run in <extra>.
function hovering(template) {
  return template
    .replace(/[^<>:%{}]+(?=: %\{)|(?<=<extra>)[^<]+/g, (text) => words(text))
    .replace("step %{x}", () => words("step {}", "%{x}"));
}

// The texts that a figure shows, each with the object that holds it: frames keep their names, which
// the slider calls, and what is no text for readers is never in the catalogue.
function textsOf(part) {
  if (part === null || typeof part !== "object") return [];
  if (Array.isArray(part)) return typeof part[0] === "object" ? part.flatMap(textsOf) : []; // or numbers
  const isFrame = "traces" in part;
  return Object.entries(part).flatMap(([key, inner]) => {
    if (key === "meta" || key === "template" || key === "sliders" || key === "updatemenus") return [];
    const isShown = ["text", "hovertemplate", ...(isFrame ? [] : ["name"])].includes(key);
    const isText = typeof inner === "string" || (Array.isArray(inner) && typeof inner[0] === "string");
    return isShown && isText ? [{ holder: part, key, text: inner }] : textsOf(inner);
  });
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

