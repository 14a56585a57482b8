"use strict";
const number = (text) => Number(text.replace(/,/g, "").replace("−", "-").split(/[ ±]/)[0] || NaN);
const element = (name, text, attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

function compared(a, b) {
  const [x, y] = [number(a), number(b)];
  if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b, "en");
  return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y;
}

function closeAll(table) {
  for (const row of table.querySelectorAll("tr.detail")) row.remove();
  for (const button of table.querySelectorAll("tbody [aria-expanded]")) {
    button.setAttribute("aria-expanded", "false");
    button.removeAttribute("aria-controls");
  }
}

function sort(table, place) {
  closeAll(table);
  const heads = [...table.tHead.rows[0].cells];
  const up = heads[place].getAttribute("aria-sort") !== "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[place].setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const text = (row) => row.cells[place].textContent.trim();
  const full = [...body.rows].filter((row) => text(row));
  const empty = [...body.rows].filter((row) => !text(row));
  full.sort((a, b) => (up ? 1 : -1) * compared(text(a), text(b)));
  body.append(...full, ...empty);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = element("button", head.textContent, { type: "button" });
    button.addEventListener("click", () => sort(table, place));
    head.replaceChildren(button);
  });
}

const data = document.getElementById("data");
const table = document.querySelector(".records table");

function found(columns, place) {
  const parts = {};
  for (const { name, values, codes } of columns) {
    const value = codes ? values[codes[place]] : values[place];
    if (value === null) continue;
    const [part, ...rest] = name.split(".");
    (parts[part] ??= []).push([rest.join("."), value]);
  }
  return parts;
}

function listed(pairs) {
  const list = element("dl", "");
  for (const [name, value] of pairs) {
    const text = typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
    list.append(element("dt", name), element("dd", text));
  }
  return list;
}

function opened(columns, place, key) {
  const inside = element("div", "", { class: "inside" });
  const parts = element("div", "", { class: "parts" });
  const titles = { config: "Configuration", measures: "Measures", seconds: "Seconds", hardware: "Hardware" };
  for (const [part, pairs] of Object.entries(found(columns, place))) {
    parts.append(element("h4", titles[part] ?? part), listed(pairs));
  }
  inside.append(parts);
  const certificate = document.getElementById(`certificate-${key}`);
  if (certificate) inside.append(certificate.querySelector("div").cloneNode(true));
  return inside;
}

function toggle(columns, row, button) {
  if (button.getAttribute("aria-expanded") === "true") {
    row.nextElementSibling.remove();
    button.setAttribute("aria-expanded", "false");
    button.removeAttribute("aria-controls");
    return;
  }
  const detail = element("tr", "", { class: "detail", id: `detail-${row.dataset.key}` });
  const cell = element("td", "", { colspan: row.cells.length });
  cell.append(opened(columns, Number(row.dataset.place), row.dataset.key));
  detail.append(cell);
  row.after(detail);
  button.setAttribute("aria-expanded", "true");
  button.setAttribute("aria-controls", detail.id);
}

if (data && table) {
  const columns = JSON.parse(data.textContent);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const button = element("button", row.cells[0].textContent, { type: "button", "aria-expanded": "false" });
    button.addEventListener("click", () => toggle(columns, row, button));
    row.cells[0].replaceChildren(button);
  }
  const filter = document.querySelector(".filter");
  const [input, count] = [filter.querySelector("input"), filter.querySelector("output")];
  filter.hidden = false;
  input.addEventListener("input", () => {
    closeAll(table);
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
      row.hidden = !words.every((word) => text.includes(word));
      left += !row.hidden;
    }
    count.textContent = `${left} of ${rows.length} records`;
  });
}
