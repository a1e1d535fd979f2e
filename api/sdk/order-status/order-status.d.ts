/** The state of an order, in the words of its page. `processing` may mean "paid, and not known yet". */
export type OrderStatus = "created" | "processing" | "paid" | "closed" | "review" | "refunded" | "disputed";

/** The finer state that the page shows, where the server tells it. */
export type OrderPhase = OrderStatus | "waiting" | "going_back";

/** Why nothing new is known: no network, no readable answer, or a token that is not valid (any more). "": all is well. */
export type Net = "" | "offline" | "unreachable" | "gone";

export interface GoingBack {
  readonly amount_text: string;
  readonly since: string | null;
  readonly settled_at: string | null;
}

export interface OrderState {
  /** The server's address, without a slash at its end. */
  readonly url: string;
  readonly token: string;
  readonly status: OrderStatus;
  readonly phase?: OrderPhase;
  /** Grows with every change; an older one never replaces a newer one. 0: nothing is known yet. */
  readonly version: number;
  /** Nothing more is expected, and the watch has ended. */
  readonly definite: boolean;
  readonly net: Net;
  /** When this browser learned it, in ms. */
  readonly at: number;
  readonly amount?: number;
  readonly currency?: string;
  /** "88.88 CNY", for programs; until the first answer what `known` said. */
  readonly amount_text?: string;
  /** "¥88.88": as the order's page writes it, in the browser's language. */
  readonly amount_shown?: string;
  readonly subject?: string;
  readonly paid_at?: string | null;
  readonly going_back?: GoingBack | null;
  /** Seconds for which the server asks for no further `refresh`. */
  readonly retry_after_s?: number;
  /** false: test money. */
  readonly live?: boolean | null;
}

export interface WatchOptions {
  /** The order's page (`order_page`), or the server's address with `token` beside it. Default: where this file is from. */
  url?: string;
  token?: string | null;
  /** A state that the page knows already, as its server rendered it. */
  known?: Partial<OrderState> & Pick<OrderState, "status" | "version">;
  /** Show a Notification when it becomes definite while the page is hidden, if the user has allowed them. */
  notify?: boolean;
  /** Called at once, and with every change and confirmation. */
  onChange?: (state: OrderState) => void;
}

export interface OrderWatch {
  /** Ask the channel now; the state after it. Never rejects. */
  refresh(): Promise<OrderState>;
  /** Call `onChange` no more. The order stays remembered until it is definite. */
  stop(): void;
}

/**
 * Watch an order until it is definite. Every change is also a `nodrop-order` event of `document` and a message of the
 * BroadcastChannel "nodrop".
 *
 * @throws TypeError `url` and `token` name no order.
 */
export function watchOrder(options: WatchOptions): OrderWatch;

/** The orders of this origin that are not definite yet, by token. */
export function rememberedOrders(): Record<string, OrderState>;

/** The texts of `<nodrop-order>` by language. A page may add its own language, or change a text. */
export const texts: Record<string, Record<string, string>>;

/** `<nodrop-order url="…" token="…" lang="…" notify>`; it fires `change` with the state as `detail`. */
export class NodropOrder extends HTMLElement {}

declare global {
  interface HTMLElementTagNameMap {
    "nodrop-order": NodropOrder;
  }
  interface DocumentEventMap {
    "nodrop-order": CustomEvent<OrderState>;
  }
}
