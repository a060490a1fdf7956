/** Finds the route of a request without Koa, for the simulation. */
import type { Route } from "#kit/http.js";
import { noSuchRoute } from "#kit/problem.js";

interface Found {
  route: Route;
  params: Record<string, string>;
  query: Record<string, string>;
  path: string;
}

const patterns = new Map<string, RegExp>();

/** The first route that fits, as Koa's router would take it. @throws Problem 404 */
export function findRoute(routes: readonly Route[], method: string, url: string): Found {
  const { pathname, searchParams } = new URL(url, "http://localhost");
  for (const route of routes) {
    const params = route.method === method ? patternOf(route.path).exec(pathname) : null;
    if (params !== null)
      return {
        ...{ route, path: pathname },
        params: { ...params.groups },
        query: Object.fromEntries(searchParams),
      };
  }
  throw noSuchRoute(pathname);
}

function patternOf(path: string): RegExp {
  const known = patterns.get(path);
  if (known !== undefined) return known;
  const made = new RegExp(`^${path.replace(/:(\w+)/g, "(?<$1>[^/]+)")}$`);
  patterns.set(path, made);
  return made;
}
