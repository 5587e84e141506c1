// The drawer: all of one call.

/** Mounts the drawer: `{isOpen, show(row, call), hide(), update()}`. */
function mountDrawer(root, app) {
  return {
    isOpen: false,
    show() { root.hidden = false; this.isOpen = true; app.announce("open"); },
    hide() { root.hidden = true; this.isOpen = false; },
    update() {},
  };
}
