/** Response header of `/livez` with a random value of the process, by which a daemon recognises its own responses. */
export const instanceHeader = 'x-spegel-ts-instance'
