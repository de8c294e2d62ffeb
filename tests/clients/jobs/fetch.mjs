// A job's program in JavaScript that fetches pages with the proxy that the environment names: `fetch.mjs LIBRARY URL...`. Prints
// a line of JSON for each: what the page says of the way that it came by, or the error.
import { createRequire } from "node:module";

// The packages are not beside this file.
const require = createRequire(`${process.env.NODE_MODULES}/package.json`);

const LIBRARIES = {
  // What Azure's own packages send their requests with.
  azure() {
    const { createDefaultHttpClient, createPipelineFromOptions, createPipelineRequest } = require("@azure/core-rest-pipeline");
    const client = createDefaultHttpClient();
    const pipeline = createPipelineFromOptions({ retryOptions: { maxRetries: 0 } });
    return async (url) => {
      const request = createPipelineRequest({ url, allowInsecureConnection: true });
      const response = await pipeline.sendRequest(client, request);
      if (response.status !== 200) throw new Error(`status ${response.status}`);
      return response.bodyAsText;
    };
  },
  // What Node's own `fetch` reads the environment with, where NODE_USE_ENV_PROXY is set (Node 24).
  undici() {
    const { EnvHttpProxyAgent, fetch } = require("undici");
    const dispatcher = new EnvHttpProxyAgent();
    return async (url) => {
      const response = await fetch(url, { dispatcher });
      if (response.status !== 200) throw new Error(`status ${response.status}`);
      return response.text();
    };
  },
};

const [library, ...urls] = process.argv.slice(2);
const get = LIBRARIES[library]();
for (const url of urls) {
  let line;
  try {
    line = { way: (await get(url)).trim().split("\n").at(-1), error: null };
  } catch (error) {
    line = { way: null, error: error.name, message: `${error.message} ${error.cause ?? ""}` };
  }
  console.log(JSON.stringify({ url, ...line }));
}
