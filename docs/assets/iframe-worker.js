// Pages opened from a folder (file:) may not start web workers, which the search runs in: an iframe does it instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = `<script>
        self.postMessage = (message) => parent.postMessage(message, "*");
        self.importScripts = (...urls) => urls.reduce((loaded, url) => loaded.then(() => new Promise((resolve, reject) => {
          const script = document.createElement("script");
          Object.assign(script, {src: url, onload: resolve, onerror: reject});
          document.head.append(script);
        })), Promise.resolve());
      </script><script src="${url}"></script>`;
      this.isLoaded = new Promise((resolve) => this.frame.addEventListener("load", resolve));
      window.addEventListener("message", (event) => {
        if (event.source === this.frame.contentWindow) {
          this.dispatchEvent(new MessageEvent("message", {data: event.data}));
        }
      });
      document.body.append(this.frame);
    }

    postMessage(message) {
      // By this window's own function: the frame's sends to this window.
      this.isLoaded.then(() => window.postMessage.call(this.frame.contentWindow, message, "*"));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
