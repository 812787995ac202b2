// What goes wrong in TLS, in the words of the configuration: those of OpenSSL and Node name options that nobody here has.

const untrusted = 'the receiver’s certificate is of no authority that is trusted: give its authority as tls.ca';
const noClientCertificate =
  'the receiver wants a certificate: give one as tls.cert and tls.key, of an authority it trusts';

const meanings: Readonly<Record<string, string>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  CERT_SIGNATURE_FAILURE: untrusted,
  CERT_HAS_EXPIRED: 'the receiver’s certificate has expired',
  CERT_NOT_YET_VALID: 'the receiver’s certificate is not valid yet: compare the clocks',
  ERR_SSL_WRONG_VERSION_NUMBER: 'the receiver does not speak TLS on this port',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'the receiver does not speak TLS on this port',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: noClientCertificate,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: noClientCertificate,
};

/** The message of an error of a connection; that of one of TLS says what to do, and has the code. */
export function explainTls(error: Error): string {
  const { code } = error as Error & { code?: unknown };
  if (typeof code !== 'string') return error.message;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const { reason = error.message } = error as Error & { reason?: string };
    return `the receiver’s certificate has another name: ${reason.replace(/\.$/, '')}. Give one of them as tls.serverName (${code})`;
  }
  const meaning = meanings[code];
  return meaning === undefined ? error.message : `${meaning} (${code})`;
}
