// The time line, closer: keys, buttons, a wheel, and dragging. Without this file the whole of it is
// there, and the table under it has the figures.
(() => {
  "use strict";
  const WIDTH = 1000; // units of the drawing
  const MOST = 200; // times
  let from = 0;
  let shown = WIDTH; // units in sight
  const drawing = () => document.querySelector(".waterfall");

  // Where everything was drawn is kept beside it, for the server draws the whole.
  const place = () => {
    const all = drawing();
    if (!all) return;
    const scale = WIDTH / shown;
    for (const bar of all.querySelectorAll(".bars rect")) {
      bar.dataset.x ??= bar.getAttribute("x");
      bar.dataset.width ??= bar.getAttribute("width");
      bar.setAttribute("x", (Number(bar.dataset.x) - from) * scale);
      bar.setAttribute("width", Number(bar.dataset.width) * scale);
    }
    for (const text of all.querySelectorAll(".bars text")) {
      text.dataset.x ??= text.getAttribute("x");
      text.setAttribute("x", (Number(text.dataset.x) - from) * scale);
    }
    all.classList.toggle("zoomed", scale > 1);
    for (const button of document.querySelectorAll("[data-zoom]"))
      // Not "disabled": a button that has the focus keeps it.
      button.setAttribute("aria-disabled", button.dataset.zoom === "in" ? scale >= MOST : scale <= 1);
    const told = document.getElementById("zoom-told");
    told.textContent = scale > 1 ? told.dataset.told.replace("{n}", scale < 10 ? scale.toFixed(1) : Math.round(scale)) : "";
  };
  const move = (units) => {
    from = Math.min(Math.max(from + units, 0), WIDTH - shown);
    place();
  };
  // Closer by a factor; the moment under the pointer stays where it is.
  const zoom = (factor, at = 0.5) => {
    const next = Math.min(Math.max(shown / factor, WIDTH / MOST), WIDTH);
    const by = (shown - next) * at;
    shown = next;
    move(by);
    document.getElementById("aloud").textContent = document.getElementById("zoom-told").textContent;
  };
  const acts = {
    in: () => zoom(2), out: () => zoom(0.5), all: () => zoom(1 / MOST),
    left: () => move(-shown / 4), right: () => move(shown / 4),
  };
  const keys = { "+": "in", "=": "in", "-": "out", 0: "all", ArrowLeft: "left", ArrowRight: "right" };

  // The part of the page is replaced while a session runs: whoever listens does so above it.
  const within = (event) => {
    const bars = drawing().querySelector(".bars").getScreenCTM();
    return Math.min(Math.max((event.clientX - bars.e) / bars.a / WIDTH, 0), 1);
  };
  document.body.addEventListener("click", (event) => {
    const button = event.target.closest("[data-zoom]");
    if (button && button.getAttribute("aria-disabled") !== "true") acts[button.dataset.zoom]();
  });
  document.body.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !event.target.matches(".waterfall-scroll")) return;
    const act = keys[event.key];
    if (!act || (shown === WIDTH && act !== "in")) return; // at its whole, arrows scroll as ever
    event.preventDefault();
    acts[act]();
  });
  document.body.addEventListener("wheel", (event) => {
    if (!event.ctrlKey || !event.target.closest(".waterfall")) return; // a plain wheel scrolls the page
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), within(event));
  }, { passive: false });
  document.body.addEventListener("dblclick", (event) => {
    if (event.target.closest(".waterfall")) zoom(2, within(event));
  });
  let dragged = null;
  document.body.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && shown < WIDTH && event.target.closest(".waterfall")) dragged = event.clientX;
  });
  document.body.addEventListener("pointermove", (event) => {
    if (!event.buttons) dragged = null; // let go outside of the window
    if (dragged === null || !drawing()) return;
    const bars = drawing().querySelector(".bars").getScreenCTM();
    move(((dragged - event.clientX) / bars.a) * (shown / WIDTH));
    dragged = event.clientX;
  });
  for (const end of ["pointerup", "pointercancel"])
    document.body.addEventListener(end, () => { dragged = null; });

  document.body.addEventListener("htmx:afterSwap", place);
  place();
})();
