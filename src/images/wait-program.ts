/**
 * The program of a benchmark image: waits until SIGTERM or SIGINT, then ends with 0, also as the first process of a
 * container, where signals without a handler are ignored. A static ELF file, written as bytes so that making images
 * needs no compiler and gives the same bytes everywhere.
 *
 * Both signals are blocked and then waited for: no handler, no stack frame to return from, no race between them.
 */

export type Architecture = 'amd64' | 'arm64'

export const architectures: readonly Architecture[] = ['amd64', 'arm64']

/** SIGINT (2) and SIGTERM (15) as a set of signals: bit n - 1. */
const amd64Code = Buffer.from(
  [
    '68 02 40 00 00', //    push 0x4002          the set, on the stack
    '31 ff', //             xor  edi, edi        how: SIG_BLOCK
    '48 89 e6', //          mov  rsi, rsp        set
    '31 d2', //             xor  edx, edx        old set: none
    '6a 08 41 5a', //       push 8; pop r10      size of a set
    'b8 0e 00 00 00', //    mov  eax, 14         rt_sigprocmask
    '0f 05', //             syscall
    '48 89 e7', // wait:    mov  rdi, rsp        set
    '31 f6', //             xor  esi, esi        info: none
    '31 d2', //             xor  edx, edx        time limit: none
    'b8 80 00 00 00', //    mov  eax, 128        rt_sigtimedwait; r10 is still 8
    '0f 05', //             syscall
    '83 f8 fc', //          cmp  eax, -4         EINTR: stopped and continued
    '74 ed', //             je   wait
    '89 c7', //             mov  edi, eax        signal > 0: code 0; error < 0: code 1
    'c1 ef 1f', //          shr  edi, 31
    'b8 e7 00 00 00', //    mov  eax, 231        exit_group
    '0f 05', //             syscall
  ]
    .join('')
    .replaceAll(' ', ''),
  'hex',
)

const arm64Code = words([
  0xd2_88_00_40, //         mov  x0, #0x4002     the set, on the stack
  0xf8_1f_0f_e0, //         str  x0, [sp, #-16]!
  0xd2_80_00_00, //         mov  x0, #0          how: SIG_BLOCK
  0x91_00_03_e1, //         mov  x1, sp          set
  0xd2_80_00_02, //         mov  x2, #0          old set: none
  0xd2_80_01_03, //         mov  x3, #8          size of a set
  0xd2_80_10_e8, //         mov  x8, #135        rt_sigprocmask
  0xd4_00_00_01, //         svc  #0
  0x91_00_03_e0, // wait:   mov  x0, sp          set
  0xd2_80_00_01, //         mov  x1, #0          info: none
  0xd2_80_00_02, //         mov  x2, #0          time limit: none
  0xd2_80_11_28, //         mov  x8, #137        rt_sigtimedwait; x3 is still 8
  0xd4_00_00_01, //         svc  #0
  0xb1_00_10_1f, //         cmn  x0, #4          EINTR: stopped and continued
  0x54_ff_ff_40, //         b.eq wait
  0xd3_7f_fc_00, //         lsr  x0, x0, #63     signal > 0: code 0; error < 0: code 1
  0xd2_80_0b_c8, //         mov  x8, #94         exit_group
  0xd4_00_00_01, //         svc  #0
])

const elfHeaderBytes = 64
const programHeaderBytes = 56
const loadAddress = 0x40_00_00n
/** The largest page of arm64. */
const alignment = 0x1_00_00n

export function waitProgram(architecture: Architecture): Buffer {
  const [machine, code] = architecture === 'amd64' ? [62, amd64Code] : [183, arm64Code]
  const headersBytes = elfHeaderBytes + programHeaderBytes
  const fileBytes = BigInt(headersBytes + code.length)

  const elf = Buffer.alloc(elfHeaderBytes)
  elf.write('\x7fELF\x02\x01\x01', 'latin1') // 64 bit, little endian, version 1
  elf.writeUInt16LE(2, 16) // executable
  elf.writeUInt16LE(machine, 18)
  elf.writeUInt32LE(1, 20) // version
  elf.writeBigUInt64LE(loadAddress + BigInt(headersBytes), 24) // entry
  elf.writeBigUInt64LE(BigInt(elfHeaderBytes), 32) // program headers
  elf.writeUInt16LE(elfHeaderBytes, 52)
  elf.writeUInt16LE(programHeaderBytes, 54)
  elf.writeUInt16LE(1, 56) // one program header

  const program = Buffer.alloc(programHeaderBytes)
  program.writeUInt32LE(1, 0) // loaded
  program.writeUInt32LE(5, 4) // readable, executable
  program.writeBigUInt64LE(loadAddress, 16)
  program.writeBigUInt64LE(loadAddress, 24)
  program.writeBigUInt64LE(fileBytes, 32)
  program.writeBigUInt64LE(fileBytes, 40)
  program.writeBigUInt64LE(alignment, 48)

  return Buffer.concat([elf, program, code])
}

function words(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, 4 * index)
  return bytes
}
