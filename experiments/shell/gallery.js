// The page: its languages, light and dark, its search, and what happens at the start.

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

const NAMED = ["alt", "aria-label", "title"]; // attributes that are read or heard

function setLanguage(language) {
  root.lang = language;
  for (const name of NAMED) {
    for (const element of document.querySelectorAll(`[data-zh-${name}]`)) {
      if (language === "en" && !element.hasAttribute(`data-en-${name}`)) continue;
      if (!element.hasAttribute(`data-en-${name}`)) {
        element.setAttribute(`data-en-${name}`, element.getAttribute(name));
      }
      element.setAttribute(name, element.getAttribute(`data-${language}-${name}`));
    }
  }
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
