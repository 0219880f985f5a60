/** How scenes spell durations, sizes, rates and parts; read into milliseconds, bytes and fractions. */
import { z } from 'zod'
import { parseSizeBytes } from '../../images/size.ts'
import { parseDuration } from '../../lib/duration.ts'

/** A moment of a phase: so long after its first pull call, or when this part of the first layer has arrived. */
export type Moment = { ms: number } | { fraction: number }

/** Some of the nodes, which are counted from 1. */
export type NodeSet = 'all' | 'odd' | 'even' | { first: number } | { firstPercent: number } | number[]

export const durationMs = z
  .string()
  .transform(readWith(parseNonNegativeDuration, 'a duration such as "3s" or "250ms" is wanted'))
  .meta({ spelled: '"3s"' })

export const sizeBytes = z
  .string()
  .transform(readWith(parseBytes, 'a size such as "100MB" is wanted'))
  .meta({ spelled: '"100MB"' })

export const rateBytesPerSecond = z
  .string()
  .transform(readWith(parseRate, 'a rate such as "10MB/s" is wanted'))
  .meta({ spelled: '"10MB/s"' })

export const moment = z
  .string()
  .transform(readWith(parseMoment, 'a moment such as "3s", or "50%" of the first layer, is wanted'))
  .meta({ spelled: '"3s" or "50%"' })

const groupProblem = 'a number of nodes or a part such as "20%" is wanted'

/** How many of the nodes: a number, or a percentage of them. */
export const count = z
  .union([z.int().min(1), z.string()], { error: groupProblem })
  .transform(readWith(parseCount, groupProblem))
  .meta({ spelled: '2 or "20%"' })

const nodeSetProblem = '"all", "odd", "even", a number of nodes, a part such as "50%" or a list of numbers is wanted'

export const nodeSet = z
  .union([z.int().min(1), z.string(), z.array(z.int().min(1)).min(1)], { error: nodeSetProblem })
  .transform(readWith(parseNodeSet, nodeSetProblem))
  .meta({ spelled: '"all", "odd", "even", 2, "50%" or [1, 4]' })

/** The numbers of the nodes in the set, rising; those that the set-up does not have are left out. */
export function nodesIn(set: NodeSet, nodes: number): number[] {
  const all = Array.from({ length: nodes }, (_, index) => index + 1)
  if (set === 'all') return all
  if (set === 'odd') return all.filter((node) => node % 2 === 1)
  if (set === 'even') return all.filter((node) => node % 2 === 0)
  if (Array.isArray(set)) return all.filter((node) => set.includes(node))
  return all.slice(0, countOf(set, nodes))
}

/** At least one, rounded up. */
export function countOf(wanted: { first: number } | { firstPercent: number }, nodes: number): number {
  // Multiplied first: 0.07 * 100 is a little more than 7.
  return 'first' in wanted ? wanted.first : Math.max(1, Math.ceil((wanted.firstPercent * nodes) / 100))
}

function parseNonNegativeDuration(text: string): number | undefined {
  const ms = parseDuration(text)
  return ms === undefined || ms < 0 ? undefined : ms
}

function parseBytes(text: string): number | undefined {
  try {
    return parseSizeBytes(text)
  } catch {
    return undefined
  }
}

function parseRate(text: string): number | undefined {
  return text.endsWith('/s') ? parseBytes(text.slice(0, -2)) : undefined
}

function parsePercent(text: string): number | undefined {
  const percent = Number(/^(\d+(?:\.\d+)?)%$/.exec(text)?.[1])
  return percent > 0 && percent <= 100 ? percent : undefined
}

function parseMoment(text: string): Moment | undefined {
  const percent = parsePercent(text)
  if (percent !== undefined) return { fraction: percent / 100 }
  const ms = parseNonNegativeDuration(text)
  return ms === undefined ? undefined : { ms }
}

function parseCount(value: number | string): { first: number } | { firstPercent: number } | undefined {
  if (typeof value === 'number') return { first: value }
  const firstPercent = parsePercent(value)
  return firstPercent === undefined ? undefined : { firstPercent }
}

function parseNodeSet(value: number | string | number[]): NodeSet | undefined {
  if (Array.isArray(value) || value === 'all' || value === 'odd' || value === 'even') return value
  return parseCount(value)
}

/** For `transform`: what the parser does not understand is an issue with this message. */
function readWith<Spelled, Value>(parse: (text: Spelled) => Value | undefined, problem: string) {
  return (text: Spelled, context: z.RefinementCtx): Value => {
    const value = parse(text)
    if (value !== undefined) return value
    context.addIssue({ code: 'custom', message: `${problem}, not ${JSON.stringify(text)}` })
    return z.NEVER
  }
}
