// The list of tasks: order, filter, search.

const OUTCOMES = {
  solved: "solved", partial: "part of the reward", none: "no reward", unfinished: "unfinished",
  failed: "failed", damaged: "not readable",
};
const ORDERS = {
  "as stored": null,
  "task": (a, b) => a.task.localeCompare(b.task, "en", { numeric: true }),
  "best reward": (a, b) => (b.best ?? -Infinity) - (a.best ?? -Infinity),
  "worst reward": (a, b) => (a.best ?? Infinity) - (b.best ?? Infinity),
  "most nodes": (a, b) => b.p.length - a.p.length,
  "most iterations": (a, b) => b.iterations - a.iterations,
  "most pairs": (a, b) => b.pairs - a.pairs,
  "outcome": (a, b) => outcomeRank(a) - outcomeRank(b),
};
const hidden = new Set(); // outcomes that the filter leaves out
let hits = null; // per string: whether it holds what is searched for
let hitNodes = new Map(); // tree to the nodes whose texts hold it

const outcomeRank = (tree) => Object.keys(OUTCOMES).indexOf(tree.outcome);
const taskRows = new Rows(byId("task-rows"), 68, drawTask, openTree);

function outcomeText(tree) {
  if (tree.outcome !== "partial") return OUTCOMES[tree.outcome];
  return `best reward ${shown(tree.best, 2)}`;
}

function drawTask(tree) {
  const row = make("div", "task");
  row.setAttribute("role", "option");
  const head = make("div", "line");
  head.append(write(make("span", "name clip"), tree.task), make("span", `badge ${tree.outcome}`, outcomeText(tree)));
  row.append(head, write(make("div", "small clip"), firstLine(strings[tree.text])), make("div", "small clip", sizesOf(tree)));
  return row;
}

function sizesOf(tree) {
  if (tree.outcome === "damaged") return tree.reason;
  const parts = [counted(tree.p.length, "node"), counted(tree.iterations, "iteration")];
  if (data.pairs) parts.push(counted(tree.pairs, "pair"));
  if (hitNodes.has(tree)) parts.unshift(counted(hitNodes.get(tree).size, "matching step"));
  if (tree.outcome === "failed") parts.push(tree.reason);
  return parts.join(" · ");
}

function firstLine(text) { return text.replace(/\s+/gu, " "); }

// Return the nodes of a tree in whose step, or in a rollout from which, the search found something.
function matchingNodes(tree) {
  const found = new Set();
  for (let i = 1; i < tree.p.length; i++) {
    if (hits[tree.a[i]] || hits[tree.o[i]]) found.add(i);
  }
  for (const [node, , ...texts] of tree.rollouts) {
    if (texts.some((text) => hits[text])) found.add(node);
  }
  return found;
}

function search(query) {
  const text = query.trim();
  pattern = text ? new RegExp(text.replace(/[.*+?^${}()|[\]\\]/gu, "\\$&"), "iu") : null;
  hits = pattern && Uint8Array.from(strings, (string) => pattern.test(string));
  hitNodes = new Map();
  if (pattern) {
    for (const tree of trees) {
      const found = matchingNodes(tree);
      if (found.size) hitNodes.set(tree, found);
    }
  }
  listTasks();
  if (opened) { showSearch(); showNodes(); showStep(); }
}

function isListed(tree) {
  if (hidden.has(tree.outcome)) return false;
  if (!pattern || hitNodes.has(tree) || hits[tree.text]) return true;
  return [tree.task, tree.id, tree.reason].some((text) => pattern.test(text));
}

function listTasks() {
  const listed = trees.filter(isListed);
  const compare = ORDERS[byId("order").value];
  if (compare) listed.sort(compare);
  taskRows.show(listed, listed.indexOf(opened));
  const steps = [...hitNodes.values()].reduce((sum, nodes) => sum + nodes.size, 0);
  byId("found").textContent = pattern || hidden.size
    ? `${listed.length} of ${counted(trees.length, "task")}` + (pattern ? `, ${counted(steps, "matching step")}` : "")
    : counted(trees.length, "task");
}

function fillControls() {
  for (const name of Object.keys(ORDERS)) {
    if (name !== "most pairs" || data.pairs) byId("order").append(new Option(name, name));
  }
  byId("order").addEventListener("change", listTasks);
  for (const [outcome, words] of Object.entries(OUTCOMES)) {
    const number = trees.filter((tree) => tree.outcome === outcome).length;
    if (!number) continue;
    const button = make("button", "", `${words} ${number}`);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      if (!hidden.delete(outcome)) hidden.add(outcome);
      button.setAttribute("aria-pressed", String(!hidden.has(outcome)));
      listTasks();
    });
    byId("filters").append(button);
  }
  let timer = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => search(event.target.value), 150);
  });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    byId("task-rows").focus();
    taskRows.moveTo(0);
  });
  byId("task-rows").addEventListener("keydown", (event) => {
    if (taskRows.moveBy(event.key)) event.preventDefault();
    else if (event.key === "Enter" && taskRows.items[taskRows.active]) {
      event.preventDefault();
      openTree(taskRows.items[taskRows.active]);
      byId("node-rows").focus();
    }
  });
}
