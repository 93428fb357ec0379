/* What makes the browser's HTML in a notebook answer: a click (or Enter, or Space) on a link to a feature or a text,
   or on the head of a column, is sent to the kernel. Rows answer like the link they hold. The kernel's side is controls.Links. */
export default {
  render({ model, el }) {
    let root = null;
    const target = e => {
      const part = e.target.closest?.("a[href^='#'], [data-sort]") || (!e.target.closest?.("button, input, summary") && e.target.closest?.(".sae tr[data-pick]"));
      return part && root.contains(part) ? part : null;
    };
    const send = (part, e) => {
      e.preventDefault();
      e.stopPropagation();
      if (part.dataset.sort) return model.send({ sort: part.dataset.sort });
      const [kind, id] = (part.dataset.pick || part.getAttribute("href").slice(1)).split("=");
      model.send({ [kind]: +id });
    };
    const click = e => { const part = target(e); if (part) send(part, e); };
    const key = e => {
      if (e.key !== "Enter" && e.key !== " ") return;
      const part = e.target.closest?.("a[href^='#'], [data-sort]");
      if (part && root.contains(part)) send(part, e);
    };
    // tabs say which is open, "more" stays open from feature to feature
    let more = false, watch = null;
    const tidy = () => {
      root.querySelectorAll(".sae-tabs button, .sae-bands button").forEach(b => b.setAttribute("aria-pressed", b.classList.contains("mod-active")));
      root.querySelectorAll("details.more").forEach(d => { if (d.open !== more) d.open = more; });
    };
    const toggle = e => { if (e.target.matches?.("details.more summary")) more = !e.target.parentNode.open; };
    const attach = () => {
      root = el.closest(".sae-browser");
      if (!root) return requestAnimationFrame(attach);
      root.addEventListener("click", toggle);
      watch = new MutationObserver(tidy);
      watch.observe(root, { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] });
      tidy();
      root.addEventListener("click", click);
      root.addEventListener("keydown", key);
    };
    model.on("msg:custom", message => {  // another feature: its card comes into view
      const right = message.top && root?.querySelector(".sae-right");
      if (!right) return;
      right.scrollTop = 0;
      const box = right.getBoundingClientRect();
      if (box.top < 0 || box.top > innerHeight - 150) right.scrollIntoView({ block: "nearest" });
    });
    attach();
    return () => { watch?.disconnect(); root?.removeEventListener("click", toggle); root?.removeEventListener("click", click); root?.removeEventListener("keydown", key); };
  },
};
