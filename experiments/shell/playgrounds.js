// --- playgrounds: a page within the page, made when it comes into sight

const playgrounds = [...document.querySelectorAll(".playground")];

function tellPlayground(frame) {
  const wish = { language: root.lang, theme: root.dataset.theme };
  frame.contentWindow?.postMessage({ jaxgd: wish }, "*");
}

function openPlayground(box) {
  const frame = box.querySelector("iframe");
  frame.addEventListener("load", () => tellPlayground(frame));
  frame.srcdoc = JSON.parse(box.querySelector("script").textContent);
}

const playgroundsSeen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    playgroundsSeen.unobserve(target);
    openPlayground(target);
  }
}, { rootMargin: "300px" });
for (const box of playgrounds) playgroundsSeen.observe(box);

window.addEventListener("message", ({ source, data }) => {
  const box = playgrounds.find((each) => each.querySelector("iframe").contentWindow === source);
  if (box && data?.jaxgd?.height) box.querySelector("iframe").style.height = `${data.jaxgd.height + 2}px`;
});
new MutationObserver(() => {
  for (const box of playgrounds) tellPlayground(box.querySelector("iframe"));
}).observe(root, { attributes: true, attributeFilter: ["lang", "data-theme"] });
