// A container of this node as the API server describes it.

/** The primary key is `id`, as the container runtime numbers it, without the runtime's name. */
export interface ContainerRow {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly podUid: string;
  readonly namespace: string;
  readonly pod: string;
}
