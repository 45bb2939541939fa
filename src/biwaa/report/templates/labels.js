"use strict";
const form = document.querySelector("form.labelling");
const items = [...form.querySelectorAll("li")];
const selects = [...form.querySelectorAll("select")];
const button = form.querySelector("button.save");
let unsaved = false;
const label = (item) => item.dataset.label ?? item.querySelector("select").value;
const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const count = () => {
  const done = selects.filter((select) => select.value).length;
  form.querySelector("output").textContent = `${done} of ${selects.length} labelled`;
  button.disabled = !done;
};
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  unsaved = true;
  event.target.closest("li").classList.toggle("done", Boolean(event.target.value));
  count();
});
button.addEventListener("click", () => {
  const rows = items.map((item) => `${cell(item.dataset.path)},${cell(label(item))}\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["path,label\n", ...rows], { type: "text/csv" }));
  link.download = form.dataset.file;
  link.click();
  unsaved = false;
});
window.addEventListener("beforeunload", (event) => unsaved && event.preventDefault());
count();
