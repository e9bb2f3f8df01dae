// The only place that touches the page. Values become text nodes, never markup.

export const byId = (id) => document.getElementById(id);

/** Set an element's text where it changed, so that selections and readers stay undisturbed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Make an element with a class and children, each an element or a text. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Show `items` as children of `parent`, in place: `create` makes one, `update` fills it. */
export function list(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, place) => {
    if (!parent.children[place]) parent.append(create());
    update(parent.children[place], item, place);
  });
}

/** Show a reason instead of a panel's content, or the content where there is no reason. */
export function empty(id, reason) {
  const element = byId(`${id}-empty`);
  element.hidden = !reason;
  say(element, reason || "");
  byId(id).dataset.empty = String(Boolean(reason));
}

/** Make a row for the table around `body`, a cell for each of its headings. */
export function row(body) {
  const line = document.createElement("tr");
  body.closest("table").querySelectorAll("thead th").forEach((heading, place) => {
    const cell = document.createElement(place ? "td" : "th"), kind = heading.className;
    if (!place) cell.scope = "row";
    cell.dataset.label = heading.textContent;
    if (kind) cell.className = kind;
    line.append(cell);
  });
  return line;
}
