/* The page that needs no kernel (after map.js): search, filters, sorting, the map, and a feature's page when it is asked for.
   Every page was rendered and escaped when this file was written; here it is only unpacked. */
const $ = id => document.getElementById(id), data = JSON.parse($("data").textContent), rows = data.rows;
const body = document.querySelector("nav tbody"), place = new Map(rows.id.map((f, i) => [f, i]));
const unpacked = new Map(), listed = new Map(), nav = body.closest("nav");
let chosen = null, sort = "density", down = true, sequence = rows.id.map((_, i) => i), kept = sequence, reach = data.reach, trs = [];  // trs: every row, as it was written

const unpack = async key => {
  const i = data.part[key];
  if (i === undefined) return "";
  if (!unpacked.has(i)) unpacked.set(i, (async () => {
    while (document.readyState === "loading" && !$("part" + i)?.nextElementSibling) await new Promise(next => setTimeout(next, 20));  // still being read
    const bytes = Uint8Array.from(atob($("part" + i).textContent), c => c.charCodeAt(0));
    return JSON.parse(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text());
  })());
  return (await unpacked.get(i))[key];
};

let map = null, fence = null;
const drawMap = points => {
  map = pointMap($("map"), points, {
    pick: f => go("feature=" + f),
    lasso: ids => { fence = ids && new Set(ids); filter(); },
  });
  map.select(chosen ?? -1);
};

const go = hash => { if (location.hash.slice(1) === hash) show(); else location.hash = hash; };
const show = async () => {
  const asked = /^(?:feature=(\d+)|(family=\d+))$/.exec(decodeURIComponent(location.hash.slice(1)));
  const key = asked ? asked[1] ?? asked[2] : location.hash === "#home" || !rows.id.length ? "home" : String(data.first);
  const content = await unpack(key);
  const card = $("card"), open = card.querySelector("details.more")?.open;
  card.innerHTML = content || "<p>There is no such page in this file.</p>";
  if (open && card.querySelector("details.more")) card.querySelector("details.more").open = true;
  chosen = /^\d+$/.test(key) ? +key : null;
  reveal();
  map?.select(chosen ?? -1);
  card.scrollTop = 0;
  if (asked && card.getBoundingClientRect().top > innerHeight - 120) card.scrollIntoView();
  $("list").textContent = (listed.has(chosen) ? "★ list" : "☆ list") + (listed.size ? ` (${listed.size})` : "");
  document.title = chosen === null ? "Feature browser" : `Feature ${chosen}: ${rows.label[place.get(chosen)] ?? ""}`;
};

const fold = text => text.normalize("NFC").toUpperCase().toLowerCase();  // as the words of the names
rows.words = rows.words.map(fold);
const starts = word => {
  const plain = s => s.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), stem = word.replace(/(ies|y|es|s)$/, "");
  if (!/^[\x00-\x7f]*$/.test(word)) return new RegExp(plain(word));
  return new RegExp(`(?<!\\w)(?:${plain(word)}${word.length > 3 ? "" : "(?!\\w)"}|${plain(stem.length > 2 ? stem : word)}(?:y|ies|i|s|es)?(?!\\w))`);
};
const filter = () => {
  const words = fold($("search").value).split(/\s+/).filter(Boolean).map(starts);
  const all = !words.length && !$("domain").value && !$("kind").value && !$("family").value && +$("trust").value === 0 && +$("density").value === 1 && !fence;
  const most = 10 ** ((1 - $("density").value) * -5) + 1e-9;
  kept = sequence.filter(i =>
    all || words.every(w => w.test(rows.words[i])) && (!$("domain").value || rows.domain[i] === $("domain").value)
      && (!$("kind").value || rows.kind[i] === $("kind").value)
      && (!$("family").value || rows.families[i].includes(+$("family").value)) && (+$("trust").value === 0 || rows.trust[i] >= +$("trust").value)
      && rows.density[i] <= most && (!fence || fence.has(rows.id[i])));
  draw(data.reach);
  map?.found(all ? null : kept.map(i => rows.id[i]));
  $("count").textContent = `${kept.length.toLocaleString("en")} features` + (most < 1 ? `, density up to ${(100 * most).toPrecision(2)}%` : "");
};
const draw = n => {  // so many rows of the table, and those of the list for printing: all of thousands would take seconds
  reach = n;
  if (!trs.length) return;  // not unpacked yet: the first rows stand there
  const drawn = kept.slice(0, n), also = [...listed.keys()].map(f => place.get(f)).filter(i => !drawn.includes(i));
  body.innerHTML = [...drawn, ...also].map(i => trs[i]).join("");
  [...body.children].slice(drawn.length).forEach(tr => { tr.hidden = true; });
  mark();
};
const reveal = () => {  // the chosen row: drawn, marked, in view
  const rank = kept.indexOf(place.get(chosen));
  if (rank >= reach) draw(rank + 50); else mark();
  const tr = body.querySelector("tr.on:not([hidden])"), at = tr && tr.offsetTop - nav.scrollTop;
  if (tr && (at < 30 || at > nav.clientHeight - 44)) nav.scrollTop = tr.offsetTop - nav.clientHeight / 2;
};
const mark = () => {
  for (const tr of body.children) {
    tr.classList.toggle("on", +tr.dataset.f === chosen);
    tr.classList.toggle("listed", listed.has(+tr.dataset.f));
  }
};
nav.addEventListener("scroll", () => {
  if (reach < kept.length && nav.scrollTop + nav.clientHeight > nav.scrollHeight - 600) draw(reach + data.reach);
});
const order = name => {
  down = name === sort ? !down : !["id", "label"].includes(name);
  sort = name;
  const key = rows[name];
  sequence = rows.id.map((_, i) => i).sort((a, b) => (key[a] < key[b] ? -1 : key[a] > key[b] ? 1 : 0) * (down ? -1 : 1) || a - b);
  filter();
  document.querySelectorAll("nav [data-sort]").forEach(b => {
    b.textContent = b.textContent.replace(/ [▾▴]$/, "") + (b.dataset.sort === sort ? (down ? " ▾" : " ▴") : "");
  });
};
const values = name => [...new Set(rows[name])].filter(Boolean).sort().map(value => [value, value.length > 60 ? value.slice(0, 60) + "…" : value]);
for (const [name, options] of [["domain", values("domain")], ["kind", values("kind")], ["family", data.families]])
  for (const [value, text] of options) {
    const option = $(name).appendChild(document.createElement("option"));
    option.value = value;
    option.textContent = text;
  }
for (const name of ["kind", "family"]) $(name).parentNode.hidden = $(name).options.length < 2;
for (const name of ["search", "domain", "kind", "family", "trust", "density"]) $(name).addEventListener("input", filter);
document.addEventListener("click", e => {
  const head = e.target.closest("[data-sort]"), row = !e.target.closest("a, button, summary") && e.target.closest("tr[data-pick]");
  if (head) order(head.dataset.sort);
  else if (row) go(row.dataset.pick);
});
$("list").onclick = async () => {
  if (chosen === null) return;
  if (listed.has(chosen)) { listed.get(chosen).remove(); listed.delete(chosen); } else {
    const part = $("report").appendChild(document.createElement("section"));
    part.innerHTML = await unpack(String(chosen));
    part.querySelectorAll("details").forEach(d => { d.open = true; });
    listed.set(chosen, part);
  }
  draw(reach);
  document.body.classList.toggle("has-list", listed.size > 0);
  show();
};
$("print").onclick = () => print();
addEventListener("hashchange", show);
const painted = () => new Promise(then => requestAnimationFrame(() => setTimeout(then)));
show().then(painted).then(() => unpack("map")).then(drawMap).then(() => unpack("rows")).then(all => {  // the card first
  trs = all;
  filter();
  reveal();  // a link may have opened the page at a row that was not there
});
