/** Media types of what an image is made of (OCI image spec, media-types.md; Docker image manifest v2 schema 2). */

export const mediaTypes = {
  oci: {
    layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
    config: 'application/vnd.oci.image.config.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    index: 'application/vnd.oci.image.index.v1+json',
  },
  docker: {
    layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
    config: 'application/vnd.docker.container.image.v1+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
  },
}
