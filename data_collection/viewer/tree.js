// One tree: rows that open and close, one per node.

let opened = null; // the tree shown
let children = []; // of each node
let depths = [];
let indent = 16; // pixels per depth; less in deep trees, so that their actions have room
let closed = new Set(); // nodes whose children are hidden
let best = new Set(); // nodes on the path to the best end
let chosen = 0; // the node shown on the right
let range = [0, 1]; // of Q_hat in this tree

const nodeRows = new Rows(byId("node-rows"), 30, drawNode, (node, event) => {
  if (event.target.closest(".toggle")) toggle(node);
  else select(node);
});

function openTree(tree, node) {
  opened = tree;
  document.body.classList.add("open");
  children = tree.p.map(() => []);
  depths = tree.p.map(() => 0);
  for (let i = 1; i < tree.p.length; i++) {
    children[tree.p[i]].push(i);
    depths[i] = depths[tree.p[i]] + 1;
  }
  indent = Math.min(16, 112 / depths.reduce((most, depth) => Math.max(most, depth), 1));
  closed = new Set();
  best = new Set(tree.end === null ? [] : pathTo(tree.end));
  const values = tree.q.filter((value) => typeof value === "number");
  range = values.length ? values.reduce(([low, high], q) => [Math.min(low, q), Math.max(high, q)], [0, 0]) : [0, 1];
  taskRows.show(taskRows.items, taskRows.items.indexOf(tree));
  showHead();
  showSearch();
  const found = hitNodes.get(tree);
  select(Number.isInteger(node) && node < tree.p.length ? node : found ? [...found].reduce((first, each) => Math.min(first, each)) : 0);
}

function pathTo(node) {
  const path = [];
  for (let i = node; i >= 0; i = opened.p[i]) path.push(i);
  return path.reverse();
}

function showHead() {
  const tree = opened;
  const head = byId("tree-head");
  clear(head);
  const title = make("h2", "", `${tree.task} `);
  title.append(make("span", `badge ${tree.outcome}`, outcomeText(tree)));
  head.append(title);
  head.append(make("p", "instruction", strings[tree.text]));
  const [requests, promptTokens, generatedTokens] = tree.cost;
  const facts = [
    counted(tree.p.length, "node"), counted(tree.iterations, "iteration"),
    `best reward ${shown(tree.best, 2)}`, counted(requests, "request"),
    `${promptTokens.toLocaleString("en")} prompt and ${generatedTokens.toLocaleString("en")} generated tokens`,
  ];
  if (data.pairs) facts.push(counted(tree.pairs, "pair"));
  if (tree.outcome !== "damaged") head.append(make("p", "note", facts.join(" · ")));
  if (tree.reason) head.append(make("p", tree.outcome === "failed" || tree.outcome === "damaged" ? "reason" : "note", tree.reason));
  byId("nothing").hidden = true;
  for (const id of ["tree-bar", "columns", "node-rows"]) byId(id).hidden = tree.outcome === "damaged";
  byId("best").hidden = tree.end === null;
}

function isMatch(node) { return Boolean(hitNodes.get(opened)?.has(node)); }

function showSearch() {
  const number = hitNodes.get(opened)?.size ?? 0;
  byId("previous").hidden = byId("next").hidden = !number;
  byId("matches").textContent = pattern ? counted(number, "matching step") : "";
}

function goToMatch(direction) {
  const order = inOrder(() => true).filter(isMatch);
  if (!order.length) return;
  const all = inOrder(() => true);
  const here = all.indexOf(chosen);
  const places = order.map((node) => all.indexOf(node));
  const next = direction > 0 ? places.findIndex((place) => place > here) : places.findLastIndex((place) => place < here);
  select(order[next >= 0 ? next : direction > 0 ? 0 : order.length - 1]);
}

// Return nodes from top to bottom, without those below nodes that are not open.
function inOrder(isOpen) {
  const order = [];
  const waiting = [0];
  while (waiting.length) {
    const node = waiting.pop();
    order.push(node);
    if (isOpen(node)) waiting.push(...[...children[node]].reverse());
  }
  return order;
}

function showNodes() {
  const order = opened.p.length ? inOrder((node) => !closed.has(node)) : [];
  nodeRows.show(order, order.indexOf(chosen));
}

function drawNode(node) {
  const tree = opened;
  const row = make("div", data.learned ? "node learned" : "node");
  row.setAttribute("role", "treeitem");
  row.setAttribute("aria-level", String(depths[node] + 1));
  row.classList.toggle("onbest", best.has(node));
  row.classList.toggle("hit", isMatch(node));
  const isParent = children[node].length > 0;
  if (isParent) row.setAttribute("aria-expanded", String(!closed.has(node)));
  const action = make("div", "action");
  action.style.paddingLeft = `${depths[node] * indent}px`;
  action.append(make("span", "toggle", isParent ? (closed.has(node) ? "▸" : "▾") : ""));
  action.append(make("span", "text", node ? firstLine(strings[tree.c[node]]) || "(empty action)" : "start"));
  const q = make("div", "number value", shown(tree.q[node], 3));
  if (typeof tree.q[node] === "number" && range[1] > range[0]) {
    q.style.setProperty("--share", `${(100 * (tree.q[node] - range[0])) / (range[1] - range[0])}%`);
  }
  row.append(action, make("div", "number", shown(tree.n[node], 0)), make("div", "number", shown(tree.v[node], 3)), q);
  if (data.learned) row.append(make("div", "number extra", shown(tree.l[node], 3)));
  row.append(make("div", "number extra", tree.f[node] & (TERMINATED | TRUNCATED) ? shown(tree.r[node], 2) : ""));
  row.append(marksOf(node));
  return row;
}

function marksOf(node) {
  const marks = make("div", "marks extra");
  const tree = opened;
  if (tree.w[node]) marks.append(make("span", "badge chosen", tree.w[node] > 1 ? `chosen ×${tree.w[node]}` : "chosen"));
  if (tree.x[node]) marks.append(make("span", "badge rejected", tree.x[node] > 1 ? `rejected ×${tree.x[node]}` : "rejected"));
  if (tree.f[node] & TERMINATED) marks.append(make("span", "badge", "end"));
  if (tree.f[node] & TRUNCATED) marks.append(make("span", "badge truncated", "cut"));
  if (tree.f[node] & INVALID) marks.append(make("span", "badge invalid", "invalid"));
  return marks;
}

function toggle(node) {
  if (!children[node].length) return;
  if (!closed.delete(node)) closed.add(node);
  if (closed.has(node) && pathTo(chosen).includes(node)) select(node);
  else showNodes();
}

// Show a node: open what is above it, bring its row into view, write its step on the right.
function select(node) {
  chosen = node;
  if (opened.p.length) for (const above of pathTo(node).slice(0, -1)) closed.delete(above);
  showNodes();
  nodeRows.moveTo(nodeRows.active);
  showStep();
  const place = `#tree=${encodeURIComponent(opened.id)}&node=${node}`;
  if (location.hash !== place) history.replaceState(null, "", place);
}

function closeTree() {
  document.body.classList.remove("open");
  byId("task-rows").focus();
}

function moveByKey(event) {
  const node = chosen;
  const key = event.key;
  if (nodeRows.moveBy(key)) select(nodeRows.items[nodeRows.active]);
  else if (key === "ArrowRight" && closed.has(node)) toggle(node);
  else if (key === "ArrowRight" && children[node].length) select(children[node][0]);
  else if (key === "ArrowLeft" && children[node].length && !closed.has(node)) toggle(node);
  else if (key === "ArrowLeft" && node) select(opened.p[node]);
  else if (key === "*") expandAll();
  else if (key === "n") goToMatch(1);
  else if (key === "N") goToMatch(-1);
  else if (key === "Escape") closeTree();
  else if (key === "Enter" || key === " ") byId("step").focus();
  else return;
  event.preventDefault();
}

function expandAll() { closed = new Set(); showNodes(); }

function fillTree() {
  const names = ["Action", "N", "V", "Q̂", ...(data.learned ? ["learned"] : []), "reward", ""];
  byId("columns").classList.toggle("learned", data.learned);
  byId("columns").append(...names.map((name, i) => make("div", `${i && name ? "number" : ""} ${i > 3 ? "extra" : ""}${name ? "" : " marks"}`, name)));
  byId("expand").addEventListener("click", expandAll);
  byId("collapse").addEventListener("click", () => {
    closed = new Set(inOrder(() => true).filter((node) => node && children[node].length));
    chosen = pathTo(chosen)[1] ?? 0;
    select(chosen);
  });
  byId("best").addEventListener("click", () => select(opened.end));
  byId("previous").addEventListener("click", () => goToMatch(-1));
  byId("next").addEventListener("click", () => goToMatch(1));
  byId("back").addEventListener("click", closeTree);
  byId("node-rows").addEventListener("keydown", moveByKey);
}
