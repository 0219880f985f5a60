/** SVG to PNG, with letters of our own: a machine that measures may have no fonts. */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { Resvg, initWasm } from '@resvg/resvg-wasm'

const pixelsPerUnit = 2
export type ToPng = (svg: string) => Uint8Array

let renderer: Promise<ToPng> | undefined

/** Rejects where the packages are not there as files, as in the bundled program. */
export function pngRenderer(): Promise<ToPng> {
  renderer ??= load()
  return renderer
}

async function load(): Promise<ToPng> {
  const require = createRequire(import.meta.url)
  const fontFiles = [
    require.resolve('@fontsource/inter/files/inter-latin-400-normal.woff2'),
    require.resolve('@fontsource/inter/files/inter-latin-600-normal.woff2'),
    require.resolve('@fontsource/inter/files/inter-latin-ext-400-normal.woff2'),
  ]
  await initWasm(readFile(require.resolve('@resvg/resvg-wasm/index_bg.wasm')))
  const fontBuffers = await Promise.all(fontFiles.map((path) => readFile(path)))
  return (svg) => {
    const image = new Resvg(svg, {
      font: { fontBuffers, defaultFontFamily: 'Inter', sansSerifFamily: 'Inter' },
      fitTo: { mode: 'zoom', value: pixelsPerUnit },
    })
    try {
      return image.render().asPng()
    } finally {
      image.free()
    }
  }
}
