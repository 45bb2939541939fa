"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
    };
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = rows.some((row) => "value" in row.cells[column].dataset);
      const before = head.getAttribute("aria-sort");
      const falling = before ? before === "ascending" : numeric;
      const known = (row) => !numeric || "value" in row.cells[column].dataset;
      rows.sort((a, b) => {
        if (known(a) !== known(b)) return known(a) ? -1 : 1;
        if (!known(a)) return 0;
        const order = numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true });
        return falling ? -order : order;
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
for (const area of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  const look = () => {
    const wide = area.scrollWidth > area.clientWidth + 2;
    const more = wide && area.scrollLeft + area.clientWidth < area.scrollWidth - 2;
    area.classList.toggle("more", more);
    hint.textContent = more ? "There are more columns: scroll sideways \u2192" : wide ? "\u2190 scroll back" : "";
    hint.hidden = !wide;
  };
  area.before(hint);
  area.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(area);
  look();
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    const shown = button.querySelector("img");
    const large = dialog.querySelector("img");
    large.src = shown.src;
    large.alt = shown.alt;
    large.className = shown.className;
    dialog.querySelector("p").textContent = button.dataset.caption;
    dialog.showModal();
  });
}
dialog?.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
