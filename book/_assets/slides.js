// A deck: arrows, Page Up and Down, Space, Home and End move; N shows the notes; the address keeps the slide.
const slides = [...document.querySelectorAll(".slide")];
const controls = document.querySelector(".controls");
const count = controls.querySelector(".count");
const notes = controls.querySelector(".notes");
const KEYS = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 };
let current = 0;

function show(number, focus) {
  current = Math.min(Math.max(number, 0), slides.length - 1);
  slides.forEach((slide, place) => {
    slide.hidden = place !== current;
  });
  count.textContent = `${current + 1} of ${slides.length}`;
  controls.querySelectorAll("[data-step]").forEach((button) => {
    button.disabled = !slides[current + Number(button.dataset.step)];
  });
  history.replaceState(null, "", `#slide-${current + 1}`);
  window.scrollTo(0, 0);
  if (focus) {
    slides[current].focus({ preventScroll: true });
  }
}

function showNotes(shown) {
  notes.setAttribute("aria-pressed", String(shown));
  document.querySelectorAll(".note").forEach((note) => {
    note.hidden = !shown;
  });
}

function fromAddress() {
  return Number(/^#slide-(\d+)$/.exec(location.hash)?.[1] ?? 1) - 1;
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) {
    return;
  }
  const onButton = event.target.closest("button, a");
  if (event.key in KEYS && !(event.key === " " && onButton)) {
    event.preventDefault();
    show(current + (event.key === " " && event.shiftKey ? -1 : KEYS[event.key]), true);
  } else if (event.key === "Home" || event.key === "End") {
    event.preventDefault();
    show(event.key === "Home" ? 0 : slides.length - 1, true);
  } else if (event.key.toLowerCase() === "n") {
    showNotes(notes.getAttribute("aria-pressed") === "false");
  }
});
controls.addEventListener("click", (event) => {
  const step = event.target.closest("[data-step]")?.dataset.step;
  if (step) {
    show(current + Number(step), false);
  }
});
notes.addEventListener("click", () => showNotes(notes.getAttribute("aria-pressed") === "false"));
window.addEventListener("hashchange", () => show(fromAddress(), false));

// formulas that are set while their slide is hidden would have no size
await window.MathJax?.startup?.promise;
slides.forEach((slide) => slide.classList.add("on-screen"));
controls.hidden = false;
showNotes(false);
show(fromAddress(), false);
