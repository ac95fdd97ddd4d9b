// In place of what a browser lacks of Node, for libraries that look at it when a page loads.
export { Buffer } from 'buffer/';
class Nothing {}
export { Nothing as Duplex, Nothing as Readable, Nothing as Transform, Nothing as Writable };
