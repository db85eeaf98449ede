// A real OpenID provider for tests: one client, whoever logs in is whom they say they are, with the groups of PEOPLE.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { PEOPLE, CLIENT, SECRET, BACK, DONE, TOLD } = JSON.parse(process.env.PROVIDER);

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT,
        client_secret: SECRET,
        grant_types: ["authorization_code", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"],
        redirect_uris: [BACK],
        ...(DONE && { post_logout_redirect_uris: [DONE] }),
        ...(TOLD && { backchannel_logout_uri: TOLD, backchannel_logout_session_required: true }),
        response_types: ["code"],
        scope: "openid profile email groups api",
      },
    ],
    scopes: ["openid", "profile", "email", "groups", "api"],
    claims: { openid: ["sub"], profile: ["preferred_username"], email: ["email"], groups: ["groups"] },
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: () => ({ scope: "api", audience: CLIENT, accessTokenFormat: "jwt", accessTokenTTL: 600 }),
      },
    },
    // It asks no private addresses otherwise, and the platform of a test has one.
    fetch: (url, { dispatcher: _, ...options }) => fetch(url, options),
    ttl: { Session: 600, Grant: 600, Interaction: 600, IdToken: 600, AccessToken: 600, DeviceCode: 600 },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id, email: `${id}@example.com`, groups: PEOPLE[id] ?? [] }),
    }),
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
