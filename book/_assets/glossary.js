// Links to terms of the glossary show the definition under the pointer, under the focus, and at the first tap.
(function () {
  let shown = null;
  let touched = false;

  function hide() {
    if (shown) {
      shown.hidden = true;
      shown = null;
    }
  }

  function show(note) {
    if (shown === note) {
      return;
    }
    hide();
    shown = note;
    note.hidden = false;
    note.style.left = "0";
    const edge = document.documentElement.clientWidth - 8;
    const place = note.getBoundingClientRect();
    const shift = Math.max(Math.min(0, edge - place.right), 8 - place.left);
    note.style.left = `${shift}px`;
  }

  function setUp(term, number) {
    const link = term.querySelector("a");
    const note = document.createElement("span");
    note.id = `companion-definition-${number}`;
    note.className = "companion-definition";
    note.setAttribute("role", "tooltip");
    note.textContent = term.dataset.definition;
    note.hidden = true;
    term.append(note);
    link.setAttribute("aria-describedby", note.id);

    term.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && show(note));
    term.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch" && !term.contains(document.activeElement)) {
        hide();
      }
    });
    link.addEventListener("focus", () => !touched && show(note));
    link.addEventListener("blur", hide);
    link.addEventListener("pointerdown", (event) => {
      touched = event.pointerType === "touch";
    });
    link.addEventListener("click", (event) => {
      if (touched && note.hidden) {
        event.preventDefault(); // the second tap follows the link
        show(note);
      }
      touched = false;
    });
  }

  document.querySelectorAll(".companion-term").forEach(setUp);
  window.addEventListener("resize", hide); // a box keeps inside the window it was opened in
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("pointerdown", (event) => shown && !shown.parentElement.contains(event.target) && hide());
})();
