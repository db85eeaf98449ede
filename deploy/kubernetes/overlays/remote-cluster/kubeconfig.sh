#!/bin/sh
# Prints a kubeconfig with the token of the account `mainstay`, for `mainstay cluster add NAME --kubeconfig FILE`.
# Arguments go to kubectl and say which cluster, e.g. --context. $SERVER: its address as the platform reaches it, if not yours.
set -eu

of_secret() {
    path=$1
    shift
    kubectl "$@" --namespace mainstay get secret mainstay-token --output "jsonpath={.data.$path}"
}

server=${SERVER:-$(kubectl "$@" config view --minify --raw --output 'jsonpath={.clusters[0].cluster.server}')}
token=
for _ in 1 2 3 4 5 6 7 8 9 10; do
    token=$(of_secret token "$@" | base64 -d)
    [ -z "$token" ] || break
    sleep 1
done
if [ -z "$token" ]; then
    echo "kubeconfig.sh: the secret mainstay-token is empty; hint: kubectl apply -k deploy/kubernetes/overlays/remote-cluster" >&2
    exit 1
fi
cat <<END
apiVersion: v1
kind: Config
clusters:
  - name: cluster
    cluster:
      server: $server
      certificate-authority-data: $(of_secret 'ca\.crt' "$@")
users:
  - name: mainstay
    user:
      token: $token
contexts:
  - name: mainstay
    context: {cluster: cluster, user: mainstay}
current-context: mainstay
END
