/** Error bodies of the OCI distribution spec ("Error codes"): `{"errors":[{code, message, detail}]}`. */

export type OciErrorCode =
  | 'BLOB_UNKNOWN'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_UNKNOWN'
  | 'UNAUTHORIZED'
  | 'UNSUPPORTED'
  | 'UNAVAILABLE'

export function ociErrorBody(code: OciErrorCode, message: string): string {
  return JSON.stringify({ errors: [{ code, message, detail: {} }] })
}
