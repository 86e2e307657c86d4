// The step of one node in full: texts, numbers, rollouts, and the chat before it.

function showStep() {
  const place = byId("step");
  clear(place);
  place.scrollTop = 0;
  const tree = opened;
  if (!tree.p.length) return;
  const node = chosen;
  place.append(make("h2", "", node ? `Step ${depths[node]}, node ${node}` : "Start, node 0"));
  if (node) {
    addText(place, "Action", "agent", strings[tree.a[node]]);
    addText(place, "Observation", "world", strings[tree.o[node]]);
  } else addText(place, "Observation", "world", strings[tree.text]);
  place.append(make("h3", "", "Numbers"), numbersOf(node));
  addRollouts(place, node);
  addChat(place, node);
  if (!node) addNotes(place);
}

function addText(place, title, kind, text) {
  place.append(make("h3", "", title));
  place.append(write(make("pre", kind), text));
}

function numbersOf(node) {
  const tree = opened;
  const flags = tree.f[node];
  const isEnd = flags & (TERMINATED | TRUNCATED);
  const rows = [
    ["visits N", shown(tree.n[node], 0)],
    ["value V", shown(tree.v[node], 4)],
    ["Q̂ = r + V", tree.q[node] === null ? "not visited" : shown(tree.q[node], 4)],
  ];
  if (data.learned && node) rows.push(["learned Q", tree.l[node] === null ? "not scored" : shown(tree.l[node], 4)]);
  if (tree.u && node) rows.push(["prior", shown(tree.u[node], 4)]);
  if (isEnd) rows.push(["reward", shown(tree.r[node], 4)]);
  for (const [name, value] of Object.entries(tree.m[node] ?? {})) rows.push([name, shown(value, 4)]);
  if (flags & TERMINATED) rows.push(["end", "the world ended the episode"]);
  if (flags & TRUNCATED) rows.push(["end", "cut by the step limit"]);
  if (flags & INVALID) rows.push(["valid", "no, the world could not carry it out"]);
  if (flags & EXHAUSTED && !isEnd) rows.push(["search", "nothing below is left to search"]);
  if (tree.w[node]) rows.push(["chosen", `in ${counted(tree.w[node], "pair")}`]);
  if (tree.x[node]) rows.push(["rejected", `in ${counted(tree.x[node], "pair")}`]);
  rows.push(["children", String(children[node].length)]);
  const table = make("table");
  for (const [name, value] of rows) {
    const row = make("tr");
    row.append(make("th", "", name), make("td", "", value));
    table.append(row);
  }
  return table;
}

function addRollouts(place, node) {
  const rollouts = opened.rollouts.filter(([from]) => from === node);
  if (!rollouts.length) return;
  place.append(make("h3", "", "Rollouts from here"));
  rollouts.forEach(([, reward, ...texts]) => {
    addFolded(place, `reward ${shown(reward, 2)}, ${counted(texts.length / 2, "step")}`, (inside) => {
      texts.forEach((text, i) => inside.append(write(make("pre", i % 2 ? "world" : "agent"), strings[text])));
    }, Boolean(hits) && texts.some((text) => hits[text]));
  });
}

function addChat(place, node) {
  addFolded(place, "The chat before this step", (inside) => {
    for (const [role, text] of opened.head) {
      inside.append(make("h3", "", role), write(make("pre", role === "assistant" ? "agent" : "world"), strings[text]));
    }
    for (const step of pathTo(node).slice(1, -1)) {
      inside.append(make("h3", "", `step ${depths[step]}`));
      inside.append(write(make("pre", "agent"), strings[opened.a[step]]), write(make("pre", "world"), strings[opened.o[step]]));
    }
  });
}

function addNotes(place) {
  if (!opened.notes.length) return;
  place.append(make("h3", "", "Notes the search kept from earlier iterations"));
  for (const [iteration, text] of opened.notes) {
    place.append(make("p", "small", `iteration ${iteration}`), write(make("pre", "agent"), strings[text]));
  }
}

// Add a part that is written when it is opened for the first time.
function addFolded(place, title, fill, isOpen = false) {
  const details = make("details");
  details.append(make("summary", "", title));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) fill(details);
  });
  details.open = isOpen;
  place.append(details);
}
