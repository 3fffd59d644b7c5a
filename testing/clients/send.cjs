// Sends with the `inngest` package of a directory, as an application would: everything else comes from the environment.
//
//   node send.cjs DIRECTORY <<< '{"send": [PAYLOAD, …]}'
//
// A payload is an event or an array of them, each sent by a call of its own. The last line of standard output is
// `{"results": [{"ids": […]} or {"error": "…"}, …]}`, in the same order.
const directory = process.argv[2];
const { Inngest } = require(require.resolve("inngest", { paths: [directory] }));
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

async function main() {
  const plan = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
  const inngest = new Inngest({ id: "nodebase", logger: quiet });
  const results = [];
  for (const payload of plan.send) {
    try {
      const { ids } = await inngest.send(payload);
      results.push({ ids });
    } catch (error) {
      results.push({ error: String(error?.message ?? error) });
    }
  }
  console.log(JSON.stringify({ results }));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
