'use strict';
// A gRPC server and its client, by grpc-js; the descriptor is read from echo.proto when it starts.

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const Echo = grpc.loadPackageDefinition(loader.loadSync(`${__dirname}/echo.proto`)).echo.Echo;
exports.grpc = grpc;

/** Starts it. `seen` is the metadata of each call. */
exports.rpc = async ({ port = 0, credentials = grpc.ServerCredentials.createInsecure() } = {}) => {
  const seen = [];
  const note = (call) => seen.push({ path: call.getPath(), metadata: call.metadata.getMap(), deadline: call.getDeadline() });
  const server = new grpc.Server();
  server.addService(Echo.service, {
    Unary: (call, done) => {
      note(call);
      const trailers = new grpc.Metadata();
      trailers.set('x-trailer', 'yes');
      done(null, call.request, trailers);
    },
    Many: (call) => { note(call); for (const text of ['a', 'b', 'c']) call.write({ text }); call.end(); },
    Both: (call) => { note(call); call.on('data', (m) => call.write(m)); call.on('end', () => call.end()); },
    // Nothing but trailers.
    Fail: (call, done) => { note(call); done({ code: grpc.status.PERMISSION_DENIED, details: 'no' }); },
  });
  const bound = await new Promise((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, got) => (error ? reject(error) : resolve(got)));
  });
  return { server, port: bound, seen, stop: () => server.forceShutdown() };
};

/** Calls it at `address`; each method answers what came, or throws grpc-js's error with its `code`. */
exports.caller = (address, credentials = grpc.credentials.createInsecure(), options = {}) => {
  const client = new Echo(address, credentials, options);
  const all = async (stream) => { const got = []; for await (const part of stream) got.push(part.text); return got; };
  return {
    unary: (text, metadata = new grpc.Metadata(), method = 'Unary') => new Promise((resolve, reject) => {
      let value; let failed;
      const call = client[method]({ text }, metadata, { deadline: Date.now() + 10000 }, (error, answer) => { failed = error; value = answer; });
      call.on('status', (status) => setImmediate(() => (failed ? reject(failed) : resolve({ text: value.text, trailers: status.metadata.getMap() }))));
    }),
    many: (text) => all(client.Many({ text })),
    both: async (texts) => {
      const call = client.Both();
      const got = [];
      // Ended only when all are echoed, so that nothing on the way may wait for the end.
      const echoed = new Promise((resolve, reject) => {
        call.on('data', (part) => { got.push(part.text); if (got.length === texts.length) call.end(); });
        call.on('end', resolve);
        call.on('error', reject);
      });
      for (const text of texts) call.write({ text });
      await echoed;
      return got;
    },
    close: () => client.close(),
  };
};
