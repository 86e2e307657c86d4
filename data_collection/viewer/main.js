// Begin: fill the page, then open what the address names.

function openByAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  const tree = trees.find((each) => each.id === address.get("tree"));
  const node = Number(address.get("node") ?? 0);
  if (tree && (tree !== opened || node !== chosen)) openTree(tree, node);
}

for (const fact of data.facts) byId("facts").append(make("li", "", fact));
byId("settings-text").textContent = JSON.stringify(data.settings, null, 2);
fillControls();
fillTree();
listTasks();
openByAddress();
addEventListener("hashchange", openByAddress);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  byId("search").focus();
});
