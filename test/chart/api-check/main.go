// api-check FILE...: does with every YAML document of the files what an API server does with it before it is stored: decodes
// it strictly (unknown and duplicate fields are errors), sets defaults and validates. Prints one line per object; exit
// status 1 if there was an error.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	vpa "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/rbac"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
)

func main() {
	scheme := legacyscheme.Scheme
	for _, add := range []func(*runtime.Scheme) error{monitoring.AddToScheme, vpa.AddToScheme} {
		utilruntime.Must(add(scheme))
	}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	failed := false
	for _, name := range os.Args[1:] {
		file, err := os.Open(name)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for _, document := range documents(file) {
			label, errs := check(codecs, document)
			if len(errs) == 0 {
				fmt.Printf("%s: ok\n", label)
			}
			for _, err := range errs {
				fmt.Printf("%s: %v\n", label, err)
				failed = true
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}

func documents(file io.Reader) (found [][]byte) {
	reader := yaml.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := reader.Read()
		if err == io.EOF {
			return found
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if len(bytes.TrimSpace(document)) > 0 {
			found = append(found, document)
		}
	}
}

func check(codecs serializer.CodecFactory, document []byte) (string, []error) {
	object, kind, err := codecs.UniversalDeserializer().Decode(document, nil, nil)
	if err != nil {
		return fmt.Sprintf("%.80q", document), []error{err}
	}
	label := fmt.Sprintf("%s %s", kind.Kind, nameOf(object))
	// Resources of operators have no internal version: their types are all there is to check.
	if !legacyscheme.Scheme.Recognizes(schema.GroupVersionKind{Group: kind.Group, Version: runtime.APIVersionInternal, Kind: kind.Kind}) {
		return label, nil
	}
	object, _, err = codecs.UniversalDecoder().Decode(document, nil, nil)
	if err != nil {
		return label, []error{err}
	}
	var errs []error
	for _, err := range validate(object) {
		errs = append(errs, err)
	}
	return label, errs
}

func nameOf(object runtime.Object) string {
	if named, ok := object.(interface{ GetName() string }); ok {
		return named.GetName()
	}
	return ""
}

func validate(object runtime.Object) field.ErrorList {
	switch o := object.(type) {
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(o, corevalidation.PodValidationOptions{})
	case *batch.Job:
		// The API server makes the selector, from the uid.
		o.Spec.Template.Labels["controller-uid"] = "uid"
		o.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"controller-uid": "uid"}}
		return batchvalidation.ValidateJobSpec(&o.Spec, field.NewPath("spec"), corevalidation.PodValidationOptions{})
	case *core.Pod:
		return corevalidation.ValidatePodCreate(o, corevalidation.PodValidationOptions{})
	case *core.Service:
		// So does the API server.
		if o.Spec.ClusterIP != "" {
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		return corevalidation.ValidateServiceCreate(o)
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o)
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o)
	case *core.ResourceQuota:
		return corevalidation.ValidateResourceQuota(o)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{})
	case *rbac.Role:
		return rbacvalidation.ValidateRole(o)
	case *rbac.RoleBinding:
		return rbacvalidation.ValidateRoleBinding(o)
	}
	return field.ErrorList{field.NotSupported(field.NewPath("kind"), fmt.Sprintf("%T", object), []string{"a case in main.go"})}
}
