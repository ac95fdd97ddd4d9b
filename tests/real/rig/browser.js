'use strict';
// As much of a browser as a sign-in takes: it keeps cookies and follows redirects.

/** Answers a function that fetches with the cookies so far; `jar` has them, and `lines` each Set-Cookie as it came. */
exports.browser = () => {
  const jar = new Map();
  const lines = [];
  const go = async (url, options = {}) => {
    const { host, pathname } = new URL(url);
    const cookies = [...jar.values()].filter((c) => c.host === host && pathname.startsWith(c.path)).map((c) => `${c.name}=${c.value}`);
    const answer = await fetch(url, { redirect: 'manual', ...options, headers: { ...(cookies.length ? { cookie: cookies.join('; ') } : {}), ...options.headers } });
    for (const line of answer.headers.getSetCookie()) {
      lines.push(line);
      const [pair, ...attributes] = line.split(';').map((text) => text.trim());
      const name = pair.slice(0, pair.indexOf('='));
      const path = attributes.find((a) => /^path=/i.test(a))?.slice(5) ?? '/';
      const expires = attributes.find((a) => /^expires=/i.test(a))?.slice(8);
      const gone = attributes.some((a) => /^max-age=0$/i.test(a)) || (expires && Date.parse(expires) <= Date.now());
      if (gone) jar.delete(`${host} ${path} ${name}`);
      else jar.set(`${host} ${path} ${name}`, { host, path, name, value: pair.slice(name.length + 1) });
    }
    return answer;
  };
  const follow = async (url, options) => {
    let answer = await go(url, options);
    const seen = [url];
    while (answer.status >= 300 && answer.status < 400 && seen.length < 12) {
      const next = new URL(answer.headers.get('location'), seen.at(-1)).href;
      seen.push(next);
      answer = await go(next);
    }
    return { answer, seen };
  };
  return { go, follow, jar, lines };
};
