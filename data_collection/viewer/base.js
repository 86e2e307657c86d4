// What the rest stands on: the data, elements made of text alone, and rows drawn as they are seen.

const data = JSON.parse(document.getElementById("data").textContent);
const strings = data.strings;
const trees = data.trees;
const byId = (id) => document.getElementById(id);
const TERMINATED = 1, TRUNCATED = 2, INVALID = 4, EXHAUSTED = 8;
let pattern = null; // the expression searched for; null while nothing is

// Return a new element. Texts become text nodes, never markup.
function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function clear(element) { element.replaceChildren(); }

function shown(value, digits) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? value.toFixed(digits) : String(value);
}

function counted(count, noun) { return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`; }

// Write a text into an element, with what is searched for marked.
function write(element, text) {
  clear(element);
  if (!pattern) { element.textContent = text; return element; }
  const everywhere = new RegExp(pattern.source, "giu");
  let end = 0;
  for (const match of text.matchAll(everywhere)) {
    element.append(text.slice(end, match.index), make("mark", "", match[0]));
    end = match.index + match[0].length;
  }
  element.append(text.slice(end));
  return element;
}

// Rows of one height of which only those in view are in the page, so that any number stays quick.
class Rows {
  constructor(container, height, draw, choose) {
    this.container = container;
    this.height = height;
    this.draw = draw;
    this.choose = choose;
    this.items = [];
    this.active = -1;
    this.space = make("div", "space");
    container.append(this.space);
    container.addEventListener("scroll", () => this.render());
    container.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(this.items[Number(row.dataset.row)], event);
    });
    new ResizeObserver(() => this.render()).observe(container);
  }

  show(items, active) {
    this.items = items;
    this.active = active;
    this.space.style.height = `${items.length * this.height}px`;
    this.render();
  }

  render() {
    const first = Math.max(0, Math.floor(this.container.scrollTop / this.height) - 10);
    const number = Math.ceil(this.container.clientHeight / this.height) + 20;
    const rows = [];
    for (let i = first; i < Math.min(this.items.length, first + number); i++) {
      const row = this.draw(this.items[i], i);
      row.id = `${this.container.id}-${i}`;
      row.dataset.row = i;
      row.classList.add("row");
      row.classList.toggle("active", i === this.active);
      row.setAttribute("aria-selected", String(i === this.active));
      row.style.transform = `translateY(${i * this.height}px)`;
      rows.push(row);
    }
    this.container.replaceChildren(this.space, ...rows);
    if (this.active < 0) this.container.removeAttribute("aria-activedescendant");
    else this.container.setAttribute("aria-activedescendant", `${this.container.id}-${this.active}`);
  }

  moveTo(position) {
    if (!this.items.length) return;
    this.active = Math.max(0, Math.min(this.items.length - 1, position));
    const top = this.active * this.height;
    const box = this.container;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + this.height > box.scrollTop + box.clientHeight) {
      box.scrollTop = top + this.height - box.clientHeight;
    }
    this.render();
  }

  // Move by the keys of lists; return whether the key was one of them.
  moveBy(key) {
    const page = Math.max(1, Math.floor(this.container.clientHeight / this.height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (key in steps) this.moveTo(this.active + steps[key]);
    else if (key === "Home") this.moveTo(0);
    else if (key === "End") this.moveTo(this.items.length - 1);
    else return false;
    return true;
  }
}
