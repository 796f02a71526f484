// The contract of contract.py, through Node's `urllib`. CommonJS, since only that looks into NODE_PATH.

const assert = require("node:assert/strict");
const { request } = require("urllib");

const SEEDED = 250;
const PER_PAGE = 60;
const NOWHERE = "0".repeat(24);

const [base, path] = process.argv.slice(2);
const collection = base + path;
const { CLIENT_OWNER: owner, CLIENT_READER: reader, CLIENT_ACCEPT: accept, CLIENT_CLUSTER: cluster } = process.env;

// Sends a request and looks at the head of its reply.
async function ask(key, method, url, status, body) {
  const headers = accept ? { Accept: accept } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const reply = await request(url, { method, headers, content: body, digestAuth: key, dataType: "text", timeout: 20000 });
  assert.equal(reply.status, status, `${method} ${url}: ${reply.data}`);
  if (status === 204) {
    assert.equal(reply.data, "");
  } else {
    const success = accept || "application/json";
    assert.equal(reply.headers["content-type"], status < 300 ? success : "application/json", `${method} ${url}`);
  }
  return { headers: reply.headers, text: reply.data };
}

const get = async (url, status = 200) => JSON.parse((await ask(reader, "GET", url, status)).text);

// Every field of an error's document, and no other.
async function refused(key, method, url, [error, reason, errorCode, detail, parameters], body) {
  const document = JSON.parse((await ask(key, method, url, error, body)).text);
  assert.deepEqual(document, { detail, error, errorCode, parameters, reason }, `${method} ${url}`);
  return document;
}

const linksOf = (document) => Object.fromEntries(document.links.map(({ rel, href }) => [rel, href]));
const without = (document) => ({ ...document, links: 0 });
const notFound = (id) => {
  const detail = `No checkpoint with ID ${id} exists for cluster ${cluster}.`;
  return [404, "Not Found", "CHECKPOINT_NOT_FOUND", detail, [id, cluster]];
};

// Follows `next` from the first page to the last.
async function allPages() {
  const seen = [];
  let pages = 0;
  for (let url = `${collection}?itemsPerPage=${PER_PAGE}`; url; pages += 1) {
    assert.ok(pages <= SEEDED, "a list without end");
    const page = await get(url);
    assert.equal(page.totalCount, SEEDED);
    for (const item of page.results) {
      assert.deepEqual(linksOf(item), { self: `${collection}/${item.id}` });
    }
    const links = linksOf(page);
    assert.equal(links.self, `${collection}?pageNum=${pages + 1}&itemsPerPage=${PER_PAGE}`);
    assert.equal("previous" in links, pages > 0);
    seen.push(...page.results);
    url = links.next;
  }
  assert.equal(pages, Math.ceil(SEEDED / PER_PAGE));
  const ids = seen.map(({ id }) => id);
  assert.equal(ids.length, SEEDED);
  assert.equal(new Set(ids).size, SEEDED);
  assert.deepEqual(ids, ids.toSorted().reverse());
  const started = seen.map((item) => item.started);
  assert.deepEqual(started, started.toSorted().reverse());
  return seen;
}

async function read() {
  const first = await get(collection);
  assert.deepEqual(Object.keys(first), ["links", "results", "totalCount"]);
  assert.equal(first.results.length, 100);
  assert.deepEqual(Object.keys(linksOf(first)), ["self", "next"]);
  const seen = await allPages();
  assert.deepEqual(seen.slice(0, 100), first.results);

  const url = `${collection}/${seen[0].id}`;
  const compact = (await ask(reader, "GET", url, 200)).text;
  const one = JSON.parse(compact);
  assert.deepEqual(without(one), without(seen[0]));
  const above = collection.slice(0, collection.lastIndexOf("/"));
  assert.deepEqual(linksOf(one), {
    self: collection,
    "http://mms.mongodb.com/cluster": above,
    "http://mms.mongodb.com/group": above.split("/").slice(0, -2).join("/"),
  });

  const error = await refused(reader, "GET", `${collection}/${NOWHERE}`, notFound(NOWHERE));

  assert.deepEqual(await get(`${url}?envelope=true`), { content: one, status: 200 });
  assert.equal((await get(`${collection}?envelope=true`)).status, 200);
  assert.deepEqual(await get(`${collection}/${NOWHERE}?envelope=true`, 404), { content: error, status: 404 });

  const pretty = (await ask(reader, "GET", `${url}?pretty=true`, 200)).text;
  assert.deepEqual(JSON.parse(pretty), one);
  assert.deepEqual(pretty.split("\n").slice(0, 2), ["{", `  "clusterId":"${one.clusterId}",`]);
  assert.equal(compact.split("\n").length, 1);
  return seen.map(({ id }) => id);
}

async function write(oldest) {
  const group = collection.split("/groups/")[1].split("/")[0];
  const forbidden = [403, "Forbidden", "ACCESS_FORBIDDEN", `This API key may not do this in group ${group}.`, [group]];
  await refused(reader, "POST", collection, forbidden, "{}");

  const { headers, text } = await ask(owner, "POST", collection, 201, "{}");
  const created = JSON.parse(text).id;
  assert.equal(headers.location, `${collection}/${created}`);
  assert.equal((await get(headers.location)).id, created);
  // Its cluster cannot be reached, which takes longer to find out than it takes to come here.
  const detail = `Checkpoint ${created} of cluster ${cluster} is not yet finished.`;
  const underWay = [409, "Conflict", "CHECKPOINT_IN_PROGRESS", detail, [created, cluster]];
  await refused(owner, "POST", collection, underWay, "{}");
  await refused(owner, "DELETE", `${collection}/${created}`, underWay);

  await ask(owner, "DELETE", `${collection}/${oldest}`, 204);
  await refused(owner, "GET", `${collection}/${oldest}`, notFound(oldest));
  return created;
}

async function main() {
  const seen = await read();
  const deleted = seen.at(-1);
  const created = await write(deleted);
  const { version } = require("urllib/package.json");
  console.log(JSON.stringify({ client: `urllib ${version}`, seen, created, deleted }));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
