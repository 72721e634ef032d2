// A ticket office. Requests become memories by themselves; a decision is one event with a name.
const http = require("node:http");
const { logs } = require("@opentelemetry/api-logs");

const events = logs.getLogger("tickets");
let left = 3;

const server = http.createServer((request, response) => {
  if (request.method !== "POST" || request.url !== "/tickets") {
    response.writeHead(404).end();
    return;
  }
  const sold = left > 0;
  if (sold) left -= 1;
  // Everything behind `engram.` is a memory's type: docs/types.md.
  events.emit({
    eventName: "engram.business_decision",
    attributes: { "engram.title": sold ? "Sell a ticket" : "Send the customer home", decision: sold, left },
  });
  response.writeHead(sold ? 201 : 409, { "content-type": "application/json" });
  response.end(JSON.stringify({ left }));
});
server.listen(Number(process.argv[2] || 8010), "127.0.0.1", () => console.log(server.address().port));
