/**
 * A certificate for 127.0.0.1 that nobody trusts, and its key: for tests only, valid for a hundred years. Made with
 * openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=127.0.0.1
 * -addext subjectAltName=IP:127.0.0.1
 */
export const testCertificate = `-----BEGIN CERTIFICATE-----
MIIBjzCCATagAwIBAgIUQ1dFikWYW77pDgWbxub8XfpGkPQwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyMTE5MzYzNFoYDzIxMjYxMDI4
MTkzNjM0WjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQJX67o1ATDA6cRA6iuo5iAux5R7sbpDLl6u6HHaSWXVORI3JYzSUyR
HRlRb2aVqdCQDiZwPsQYkafIOS7Wmjbqo2QwYjAdBgNVHQ4EFgQUgN6aGCkDkgM0
7DPk7JosTV/PmpYwHwYDVR0jBBgwFoAUgN6aGCkDkgM07DPk7JosTV/PmpYwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQC
IE5u6e3KNdB0PcQBAK5kPxDecw1OBoWA7Gp8XUyn7Jf/AiBkRBCzHoFecPI0rzrL
hxNe/mXF0Wibvpqyh57xnbQ4Bw==
-----END CERTIFICATE-----
`

export const testKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg5f5Jbo87naBmrSdY
xkihzaO7RQlA0VXCK3f00DSVG06hRANCAAQJX67o1ATDA6cRA6iuo5iAux5R7sbp
DLl6u6HHaSWXVORI3JYzSUyRHRlRb2aVqdCQDiZwPsQYkafIOS7Wmjbq
-----END PRIVATE KEY-----
`
