"use strict";
// Everything that comes from the server is put in as text, never as markup.

const el = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

let api = null;

const resolve = (schema) => {
  for (let depth = 0; schema && schema.$ref && depth < 10; depth++) {
    schema = schema.$ref.slice(2).split("/").reduce((at, part) => at && at[part], api);
  }
  return schema || {};
};

// example makes a body to start from out of a schema.
const example = (schema, depth = 0) => {
  schema = resolve(schema);
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.enum) return schema.enum[0];
  if (schema.oneOf) return example(schema.oneOf[0], depth + 1);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === "object") {
    const out = {};
    const required = schema.required || [];
    for (const [name, property] of Object.entries(schema.properties || {})) {
      if (depth < 3 && (required.includes(name) || resolve(property).examples)) out[name] = example(property, depth + 1);
    }
    return out;
  }
  if (type === "array") return depth < 4 ? [example(schema.items, depth + 1)] : [];
  return { string: "", integer: 0, number: 0, boolean: false }[type] ?? null;
};

// read shows an answer as it comes in, so that event streams can be watched.
const read = async (response, out, signal) => {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  while (!signal.aborted) {
    const { done, value } = await reader.read();
    if (done) break;
    text = (text + decoder.decode(value, { stream: true })).slice(-200000);
    out.lastChild.textContent = text;
  }
  // Pretty only if nothing is lost by it: numbers must stay as they were sent.
  try {
    const pretty = JSON.stringify(JSON.parse(text), null, 2);
    if (pretty.replace(/\s/g, "") === text.replace(/\s/g, "")) out.lastChild.textContent = pretty;
  } catch { /* not JSON */ }
};

const call = async (method, path, form, parameters, out, signal) => {
  const query = new URLSearchParams();
  const headers = {};
  for (const p of parameters) {
    const value = form.elements[p.in + ":" + p.name].value;
    if (p.in === "path") path = path.replace("{" + p.name + "}", encodeURIComponent(value));
    else if (value !== "" && p.in === "query") query.append(p.name, value);
    else if (value !== "" && p.in === "header") headers[p.name] = value;
  }
  const token = document.getElementById("token").value;
  if (token) headers.Authorization = "Bearer " + token;
  const options = { method, headers, signal };
  const body = form.elements.body;
  if (body && body.value.trim()) {
    headers["Content-Type"] = "application/json";
    options.body = body.value;
  }
  const url = "." + path + (query.size ? "?" + query : "");
  out.replaceChildren(el("p", {}, method + " " + url.slice(1) + " …"), el("pre"));
  try {
    const response = await fetch(url, options);
    out.firstChild.textContent = response.status + " " + response.statusText;
    if (response.body) await read(response, out, signal);
  } catch (error) {
    out.firstChild.textContent = signal.aborted ? "stopped" : String(error);
  }
};

const operation = (method, path, op, shared) => {
  const parameters = [...shared, ...(op.parameters || [])];
  const form = el("form");
  if (op.description) form.append(el("p", {}, op.description));
  for (const p of parameters) {
    const attributes = { name: p.in + ":" + p.name };
    if (p.required) attributes.required = "";
    form.append(el("label", {}, el("span", {}, p.name, " ", el("small", {}, p.in)),
      el("span", {}, el("input", attributes), " ", el("small", {}, p.description || ""))));
  }
  const content = op.requestBody && op.requestBody.content && op.requestBody.content["application/json"];
  if (content) {
    const area = el("textarea", { name: "body", "aria-label": "body", spellcheck: "false" });
    area.value = JSON.stringify(example(content.schema), null, 2);
    form.append(area);
  }
  const out = el("div");
  const stop = el("button", { type: "button" }, "Stop");
  form.append(el("button", {}, "Send"), " ", stop, out);
  let running = new AbortController();
  stop.addEventListener("click", () => running.abort());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    running.abort();
    running = new AbortController();
    call(method.toUpperCase(), path, form, parameters, out, running.signal);
  });
  const details = el("details", {}, el("summary", {}, el("b", {}, method.toUpperCase()), el("code", {}, path), el("span", {}, op.summary || "")), form);
  details.dataset.text = (method + " " + path + " " + (op.summary || "")).toLowerCase();
  return details;
};

const show = () => {
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of ["get", "post", "patch", "put", "delete"]) {
      if (!item[method]) continue;
      const tag = (item[method].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(method, path, item[method], item.parameters || []));
    }
  }
  const main = document.getElementById("operations");
  main.replaceChildren();
  for (const [tag, operations] of groups) main.append(el("section", {}, el("h2", {}, tag), ...operations));
};

document.getElementById("search").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const details of document.querySelectorAll("details")) details.hidden = !details.dataset.text.includes(wanted);
});

fetch("openapi.json").then((response) => response.json()).then((document_) => {
  api = document_;
  show();
}).catch((error) => document.getElementById("operations").replaceChildren(el("p", {}, String(error))));
