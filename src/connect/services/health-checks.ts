// The health check ports of Services with `externalTrafficPolicy: Local`: load balancers outside ask each node there
// whether it has an endpoint of its own, and send no new connections to nodes that say 503. The answer is kube-proxy's.
import { createServer, type Server } from 'node:http';

/** One Service's port, and how many ready endpoints this node has for it. */
export interface HealthCheck {
  /** "namespace/name" */
  readonly service: string;
  readonly port: number;
  readonly localReady: number;
}

/** The servers of all health check ports. */
export interface HealthChecks {
  /** Makes the servers exactly these; the ones that stay are not interrupted. */
  update(wanted: readonly HealthCheck[]): void;
  /** The ports that are served. */
  ports(): number[];
  stop(): Promise<void>;
}

/** What a load balancer is told. */
export function healthAnswer(check: HealthCheck): { status: number; headers: Record<string, string>; body: string } {
  const [namespace = '', name = ''] = check.service.split('/');
  return {
    status: check.localReady > 0 ? 200 : 503,
    headers: {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(check.localReady),
    },
    body: JSON.stringify({
      service: { namespace, name },
      localEndpoints: check.localReady,
      serviceProxyHealthy: true,
    }),
  };
}

/** Starts with no port. `onError` is told of ports that cannot be had; they are tried again with each update. */
export function createHealthChecks(onError: (port: number, error: Error) => void): HealthChecks {
  const servers = new Map<number, { check: HealthCheck; server: Server }>();

  function open(check: HealthCheck): void {
    const server = createServer((_request, response) => {
      const { status, headers, body } = healthAnswer(servers.get(check.port)?.check ?? check);
      response.writeHead(status, headers).end(body);
    });
    const give = (error: NodeJS.ErrnoException) => {
      servers.delete(check.port);
      onError(check.port, error);
    };
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EAFNOSUPPORT' && error.code !== 'EADDRNOTAVAIL') return give(error);
      server.once('error', give).listen(check.port, '0.0.0.0'); // a machine without IPv6
    });
    server.listen(check.port, '::');
    servers.set(check.port, { check, server });
  }

  return {
    update(wanted) {
      const ports = new Set(wanted.map((each) => each.port));
      for (const [port, { server }] of servers) {
        if (ports.has(port)) continue;
        servers.delete(port);
        server.close();
        server.closeAllConnections();
      }
      for (const check of wanted) {
        const known = servers.get(check.port);
        if (known === undefined) open(check);
        else known.check = check;
      }
    },
    ports: () => [...servers.keys()],
    async stop() {
      const closing = [...servers.values()].map(
        ({ server }) =>
          new Promise<void>((resolve) => {
            server.close(() => resolve());
            server.closeAllConnections();
          }),
      );
      servers.clear();
      await Promise.all(closing);
    },
  };
}
