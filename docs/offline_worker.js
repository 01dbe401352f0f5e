// Browsers start no worker for a page opened as a file: the search then runs in a hidden frame instead.
window.Worker = class extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { hidden: true }));
    const inner = this.frame.contentWindow;
    inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
    const script = Object.assign(this.frame.contentDocument.createElement("script"), { src: new URL(url, location).href });
    this.ready = new Promise(done => script.addEventListener("load", done));
    this.frame.contentDocument.body.append(script);
  }
  postMessage(data) {
    this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
  }
  terminate() {
    this.frame.remove();
  }
};
