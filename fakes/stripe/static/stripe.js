// A stand-in for Stripe.js: the payment element in a frame of the fake, confirmPayment and retrievePaymentIntent.
(() => {
  const origin = new URL(document.currentScript.src).origin;

  class PaymentElement {
    constructor(options) {
      this.frame = Object.assign(document.createElement("iframe"), {title: "Card", allow: "payment"});
      this.frame.src = `${origin}/elements/payment.html#${options.appearance?.theme ?? "stripe"}`;
      Object.assign(this.frame.style, {width: "100%", height: "420px", border: "0", colorScheme: "normal"});
      this.handlers = {};
      this.isReady = new Promise(resolve => { this.setReady = resolve; });
      addEventListener("message", message => this.receive(message));
    }
    mount(target) {
      (typeof target === "string" ? document.querySelector(target) : target).append(this.frame);
    }
    unmount() { this.frame.remove(); }
    destroy() { this.frame.remove(); }
    on(name, handler) { this.handlers[name] = handler; return this; }
    receive({origin: sender, source, data}) {
      if (sender !== origin || source !== this.frame.contentWindow) return;
      if (data.height) this.frame.style.height = `${data.height}px`;
      if (data.ready) { this.setReady(); this.handlers.ready?.(); }
    }
    async call(message) {
      await this.isReady;
      const {port1, port2} = new MessageChannel();
      this.frame.contentWindow.postMessage(message, origin, [port2]);
      return new Promise(resolve => { port1.onmessage = ({data}) => resolve(data); });
    }
  }

  window.Stripe = key => {
    if (!/^pk_(test|live)_/.test(key)) throw new Error(`Invalid API key: ${key}. A publishable key begins with pk_test_ or pk_live_.`);
    return {
      elements(options) {
        const made = {
          create(type) {
            if (type !== "payment") throw new Error("This stand-in has only the payment element.");
            return made.payment = new PaymentElement(options);
          },
          getElement: () => made.payment ?? null,
          submit: async () => ({}),
          clientSecret: options.clientSecret,
        };
        return made;
      },
      confirmPayment: ({elements}) => elements.payment.call({key, confirm: elements.clientSecret}),
      async retrievePaymentIntent(clientSecret) {
        const answer = await fetch(`${origin}/v1/payment_intents/${clientSecret.split("_secret_")[0]}?client_secret=${clientSecret}`,
          {headers: {Authorization: `Bearer ${key}`}});
        const body = await answer.json();
        return answer.ok ? {paymentIntent: body} : {error: body.error};
      },
    };
  };
})();
