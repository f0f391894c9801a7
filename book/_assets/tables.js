// On a narrow page a table that does not fit becomes cards: one a row, every cell with the name of its column. The roles
// say what the changed display would hide from a screen reader.
(function () {
  const NARROW = 600; // CSS pixels of the column

  function roles(table, on) {
    const set = (element, role) => (on ? element.setAttribute("role", role) : element.removeAttribute("role"));
    set(table, "table");
    for (const group of table.querySelectorAll("thead, tbody")) set(group, "rowgroup");
    for (const row of table.rows) set(row, "row");
    for (const cell of table.querySelectorAll("thead th")) set(cell, "columnheader");
    for (const cell of table.querySelectorAll("thead td")) set(cell, "cell");
    for (const cell of table.querySelectorAll("tbody td")) set(cell, "cell");
  }

  function lay(box) {
    const table = box.querySelector("table");
    if (!table || !box.clientWidth) return;
    box.classList.remove("companion-stacked");
    const stack = box.clientWidth < NARROW && table.scrollWidth > box.clientWidth + 1;
    if (stack && !box.dataset.named) {
      const names = [...table.tHead.rows[0].cells].map((head) => head.textContent);
      for (const row of table.querySelectorAll("tbody tr")) {
        [...row.cells].forEach((cell, index) => {
          cell.dataset.column = names[index] ?? "";
          cell.classList.toggle("companion-empty", !cell.textContent.trim()); // a card has no place to keep for it
        });
      }
      box.dataset.named = "true";
    }
    box.classList.toggle("companion-stacked", stack);
    roles(table, stack);
  }

  function start() {
    const boxes = [...document.querySelectorAll(".companion-table")];
    const widths = new Map();
    const watcher = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (widths.get(target) === target.clientWidth) continue; // only the height changed: our own doing
        widths.set(target, target.clientWidth);
        lay(target);
      }
    });
    boxes.forEach((box) => watcher.observe(box));
    const print = (on) => boxes.forEach((box) => (on ? box.classList.remove("companion-stacked") : lay(box)));
    window.addEventListener("beforeprint", () => print(true));
    window.addEventListener("afterprint", () => print(false));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
