export {
  WebGLRenderer, Scene, PerspectiveCamera, Group, Mesh, SphereGeometry, CylinderGeometry,
  MeshLambertMaterial, AmbientLight, DirectionalLight, Vector3, Quaternion,
} from "three";
